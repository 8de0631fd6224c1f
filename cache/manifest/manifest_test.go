package manifest_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/larder-registry/larder/cache/manifest"
)

func TestCheckRefusesInvalidManifests(t *testing.T) {
	const index, image = ocispec.MediaTypeImageIndex, ocispec.MediaTypeImageManifest
	for _, c := range []struct {
		name, mediaType, raw string
	}{
		{"invalid JSON", image, `{`},
		{"another type", image, `{"mediaType": "` + index + `", "manifests": []}`},
		{"no type", "", `{"layers": []}`},
		{"an index with layers", index, `{"manifests": [], "layers": []}`},
		{"an index with a config", index, `{"manifests": [], "config": {"digest": "` + string(digest.FromString("")) + `"}}`},
		{"an invalid digest", image, `{"layers": [{"digest": "sha256:../../etc/passwd"}]}`},
		{"a layer without a digest", image, `{"layers": [{"size": 5}]}`},
		{"null", image, `null`},
		{"an array", image, `[]`},
		{"nothing of its type", image, `{"mediaType": "` + image + `"}`},
		{"not what its type has", index, `{"mediaType": "` + index + `", "layers": []}`},
		{"a type that is of no manifest", "text/html", `{"mediaType": "text/html", "layers": []}`},
		{"an index by its Content-Type", index, `{"config": {"digest": "` + string(digest.FromString("")) + `"}, "layers": []}`},
		{"layers twice", image, `{"mediaType": "` + image + `", "layers": [], "layers": []}`},
		{"layers in two cases", image, `{"mediaType": "` + image + `", "layers": [], "Layers": []}`},
		{"layers in another case", image, `{"mediaType": "` + image + `", "config": {"digest": "` + string(digest.FromString("")) + `"}, "Layers": []}`},
		{"a digest twice", image, `{"mediaType": "` + image + `", "layers": [{"digest": "` + string(digest.FromString("a")) + `", "digest": "` + string(digest.FromString("b")) + `"}]}`},
		{"null as a layer", image, `{"mediaType": "` + image + `", "layers": [null]}`},
		{"two documents", image, `{"mediaType": "` + image + `", "layers": []} {}`},
		{"an image with the blobs of an artifact", image, `{"mediaType": "` + image + `", "layers": [], "blobs": []}`},
		{"schema 1", "application/vnd.docker.distribution.manifest.v1+prettyjws", `{"schemaVersion": 1, "fsLayers": [], "history": []}`},
		{"too large", image, `{"layers": []` + strings.Repeat(" ", manifest.MaxSize) + `}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := manifest.Manifest{Digest: digest.FromString(c.raw), MediaType: c.mediaType, Raw: []byte(c.raw)}
			if _, err := m.Check(); !errors.Is(err, manifest.ErrRefused) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestCheckRefusesContentOfAnotherDigest(t *testing.T) {
	m := manifest.Manifest{Digest: digest.FromString("a"), MediaType: ocispec.MediaTypeImageManifest, Raw: []byte(`{"layers": []}`)}
	if _, err := m.Check(); !errors.Is(err, manifest.ErrMismatch) {
		t.Errorf("got %v", err)
	}
}

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
