package manifest_test

import (
	"slices"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/larder-registry/larder/cache/manifest"
)

func TestNamedTellsBlobsFromManifests(t *testing.T) {
	for raw, want := range map[string][2][]digest.Digest{
		`{"config":{"digest":"c"},"layers":[{"digest":"l"},{"digest":"elsewhere","urls":["https://example.com/l"]}]}`: {{"l", "c"}, nil},
		`{"blobs":[{"digest":"b"}]}`: {{"b"}, nil},
		`{"manifests":[{"digest":"m"},{"digest":"i","mediaType":"Application/vnd.oci.image.index.v1+json"}]}`: {nil, {"m", "i"}},
		`{"manifests":[{"digest":"l","mediaType":"application/vnd.oci.image.layer.v1.tar+gzip"},` +
			`{"digest":"c","mediaType":"application/vnd.buildkit.cacheconfig.v0"}]}`: {{"l", "c"}, nil},
	} {
		m := manifest.Manifest{Raw: []byte(raw)}
		blobs, manifests, err := m.Named()
		if err != nil {
			t.Errorf("%s: %v", raw, err)
		}
		if got := [2][]digest.Digest{digestsOf(blobs), digestsOf(manifests)}; !slices.Equal(got[0], want[0]) || !slices.Equal(got[1], want[1]) {
			t.Errorf("%s names the blobs and manifests %v, want %v", raw, got, want)
		}
	}
	m := manifest.Manifest{Raw: []byte("<html>")}
	if _, _, err := m.Named(); err == nil {
		t.Error("a web page is read as a manifest")
	}
}

func digestsOf(list []ocispec.Descriptor) (digests []digest.Digest) {
	for _, d := range list {
		digests = append(digests, d.Digest)
	}
	return digests
}
