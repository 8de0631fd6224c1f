package manifest_test

import (
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/larder-registry/larder/cache/manifest"
)

func FuzzCheck(f *testing.F) {
	f.Add([]byte(`{"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},"layers":[]}`))
	f.Add([]byte(`{"manifests": [{"digest": "sha256:x"}], "mediaType": "y"}`))
	f.Add([]byte(`{"layers": [{"digest": "sha512:00", "urls": ["https://example"]}], "config": null}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		m := manifest.Manifest{Digest: digest.FromBytes(raw), MediaType: ocispec.MediaTypeImageManifest, Raw: raw}
		children, err := m.Check()
		for _, child := range children {
			if err := child.Digest.Validate(); err != nil {
				t.Errorf("a child is %q: %v", child.Digest, err)
			}
		}
		if err == nil && m.Size != int64(len(raw)) {
			t.Errorf("size %d", m.Size)
		}
	})
}
