package ecrtest

import (
	"encoding/json"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const dockerManifest = "application/vnd.docker.distribution.manifest.v2+json"

// dockerTypes are Docker's names of what OCI calls otherwise.
func dockerTypes() map[string]string {
	return map[string]string{
		dockerManifest: ocispec.MediaTypeImageManifest,
		"application/vnd.docker.container.image.v1+json":    ocispec.MediaTypeImageConfig,
		"application/vnd.docker.image.rootfs.diff.tar":      ocispec.MediaTypeImageLayer,
		"application/vnd.docker.image.rootfs.diff.tar.gzip": ocispec.MediaTypeImageLayerGzip,
	}
}

// forAccept returns the manifest as ECR gives it to a client that names it by
// tag: one that accepts only the other of the two forms of an image manifest gets
// it converted, with another digest, under which there is nothing. Lists and
// indexes are not converted, nor what a client accepts in neither form.
func (m manifest) forAccept(accept []string) manifest {
	if accepts(accept, m.mediaType) {
		return m
	}
	var replace []string
	var to string
	switch {
	case m.mediaType == dockerManifest && accepts(accept, ocispec.MediaTypeImageManifest):
		to = ocispec.MediaTypeImageManifest
		for docker, oci := range dockerTypes() {
			replace = append(replace, `"`+docker+`"`, `"`+oci+`"`)
		}
	case m.mediaType == ocispec.MediaTypeImageManifest && accepts(accept, dockerManifest):
		to = dockerManifest
		for docker, oci := range dockerTypes() {
			replace = append(replace, `"`+oci+`"`, `"`+docker+`"`)
		}
	default:
		return m
	}
	var doc map[string]json.RawMessage
	if json.Unmarshal([]byte(strings.NewReplacer(replace...).Replace(string(m.raw))), &doc) != nil || doc == nil {
		return m
	}
	doc["mediaType"] = json.RawMessage(`"` + to + `"`) // which OCI may leave out
	raw, err := json.Marshal(doc)
	if err != nil {
		return m
	}
	return manifest{mediaType: to, raw: raw, digest: digest.FromBytes(raw)}
}

// accepts tells whether Accept headers name a media type, or do not restrict
// what comes.
func accepts(headers []string, mediaType string) bool {
	if len(headers) == 0 {
		return true
	}
	for part := range strings.SplitSeq(strings.Join(headers, ","), ",") {
		name, _, _ := strings.Cut(part, ";")
		switch strings.TrimSpace(name) {
		case mediaType, "*/*", "application/*":
			return true
		}
	}
	return false
}
