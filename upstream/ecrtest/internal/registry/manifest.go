package registry

import (
	"encoding/json"
	"slices"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Manifest is a manifest or an index. It does not change.
type Manifest struct {
	MediaType string
	Raw       []byte
	Digest    digest.Digest
}

// NewManifest returns the manifest of these bytes.
func NewManifest(mediaType string, raw []byte) Manifest {
	return Manifest{MediaType: mediaType, Raw: raw, Digest: digest.FromBytes(raw)}
}

// Subject returns the subject of the manifest, or "".
func (m Manifest) Subject() digest.Digest {
	subject, _, _ := m.referrer()
	return subject
}

// Children returns the digests of all that the manifest or index names.
func (m Manifest) Children() []digest.Digest {
	var doc struct {
		Config    ocispec.Descriptor
		Layers    []ocispec.Descriptor
		Manifests []ocispec.Descriptor
	}
	if json.Unmarshal(m.Raw, &doc) != nil {
		return nil
	}
	var children []digest.Digest
	for _, d := range slices.Concat([]ocispec.Descriptor{doc.Config}, doc.Layers, doc.Manifests) {
		children = append(children, d.Digest)
	}
	return children
}

// referrer returns the subject of the manifest, and the entry of the manifest in the
// index of the subject's referrers. ok is false if there is no subject.
func (m Manifest) referrer() (subject digest.Digest, entry ocispec.Descriptor, ok bool) {
	var doc struct {
		ArtifactType string              `json:"artifactType"`
		Config       ocispec.Descriptor  `json:"config"`
		Subject      *ocispec.Descriptor `json:"subject"`
		Annotations  map[string]string   `json:"annotations"`
	}
	if json.Unmarshal(m.Raw, &doc) != nil || doc.Subject == nil {
		return "", ocispec.Descriptor{}, false
	}
	if doc.ArtifactType == "" {
		doc.ArtifactType = doc.Config.MediaType
	}
	return doc.Subject.Digest, ocispec.Descriptor{
		MediaType:    m.MediaType,
		Digest:       m.Digest,
		Size:         int64(len(m.Raw)),
		ArtifactType: doc.ArtifactType,
		Annotations:  doc.Annotations,
	}, true
}
