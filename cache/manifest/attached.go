package manifest

import "github.com/opencontainers/go-digest"

// attachedTo are the annotations with which an entry of an index names the image in the same
// index that it is about: those of BuildKit's attestations and of SOCI's indexes.
var attachedTo = []string{"vnd.docker.reference.digest", "com.amazon.soci.image-manifest-digest"}

// AttachedTo returns the image that an entry of an index is about, by the entry's annotations, or
// "" if it is about none.
func AttachedTo(annotations map[string]string) digest.Digest {
	for _, key := range attachedTo {
		if d := annotations[key]; d != "" {
			return digest.Digest(d)
		}
	}
	return ""
}
