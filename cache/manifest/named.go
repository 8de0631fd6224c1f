package manifest

import (
	"encoding/json"
	"fmt"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Named returns the descriptors in a manifest of the store: of its blobs, and of the manifests
// that an index lists. Blobs with URLs are left out: they live elsewhere, and are never fetched
// from there. An entry of an index that is not a manifest is a blob: BuildKit exports its cache as
// an index of layers.
func (m *Manifest) Named() (blobs, manifests []ocispec.Descriptor, err error) {
	var doc struct {
		Config                   *ocispec.Descriptor
		Layers, Blobs, Manifests []ocispec.Descriptor
	}
	if err := json.Unmarshal(m.Raw, &doc); err != nil {
		return nil, nil, fmt.Errorf("read manifest %s: %w", m.Digest, err)
	}
	all := append(doc.Layers, doc.Blobs...)
	if doc.Config != nil {
		all = append(all, *doc.Config)
	}
	for _, entry := range doc.Manifests {
		if isEntryOfManifest(entry.MediaType) {
			manifests = append(manifests, entry)
		} else {
			all = append(all, entry)
		}
	}
	for _, d := range all {
		if len(d.URLs) == 0 {
			blobs = append(blobs, d)
		}
	}
	return blobs, manifests, nil
}

// isEntryOfManifest reports whether an entry of an index with this media type, in any letter case,
// is a manifest.
func isEntryOfManifest(mediaType string) bool {
	return mediaType == "" || IsManifest(strings.ToLower(mediaType))
}
