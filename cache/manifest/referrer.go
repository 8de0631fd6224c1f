package manifest

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/larder-registry/larder/cache/disk"
)

// Referrer describes a manifest as a registry does in a list of referrers
// (distribution-spec, "Listing Referrers").
func (m *Manifest) Referrer() ocispec.Descriptor {
	var doc struct {
		ArtifactType string                     `json:"artifactType"`
		Config       struct{ MediaType string } `json:"config"`
		Annotations  map[string]string          `json:"annotations"`
	}
	_ = json.Unmarshal(m.Raw, &doc) // it was checked when it was kept; what is odd in it is left out
	if doc.ArtifactType == "" {
		doc.ArtifactType = doc.Config.MediaType
	}
	return ocispec.Descriptor{
		MediaType:    m.MediaType,
		ArtifactType: doc.ArtifactType,
		Digest:       m.Digest,
		Size:         m.Size,
		Annotations:  doc.Annotations,
	}
}

// maxMediaType bounds the media types of descriptors, in characters (RFC 6838, 4.2: 127 for
// each of its two parts).
const maxMediaType = 255

// CheckReferrers returns an error for a list that has an entry which cannot be one of a
// manifest.
func CheckReferrers(list []ocispec.Descriptor) error {
	for _, d := range list {
		switch {
		case disk.CheckDigest(d.Digest) != nil, d.Digest.Algorithm() != digest.SHA256 && d.Digest.Algorithm() != digest.SHA512:
			return fmt.Errorf("it lists %.100q, which is not a digest of sha256 or sha512", d.Digest)
		case d.Size < 0:
			return fmt.Errorf("it lists %s with a size of %d bytes", d.Digest, d.Size)
		case len(d.MediaType) > maxMediaType, len(d.ArtifactType) > maxMediaType:
			return errors.New("it lists a media type of more than 255 characters")
		}
	}
	return nil
}
