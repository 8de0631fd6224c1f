package bundle_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/larder-registry/larder/cache/bundle/bundletest"
)

// An archive of another tool that has no names, or has referrers without one.
func TestReferrersOfOtherLayoutsAreFound(t *testing.T) {
	s := make(bundletest.Store)
	app := s.AddImage("amd64", "base", "app")
	signature := s.AddReferrer(app, "application/vnd.example.signature", "signature")
	ofSignature := s.AddReferrer(signature, "application/vnd.example.timestamp", "timestamp")
	other := s.AddReferrer(ocispec.Descriptor{MediaType: app.MediaType, Digest: digest.FromString("other"), Size: 5}, "text/x", "of another image")
	site := make(bundletest.Store)
	_, layout := unpack(t, site, layoutOf(t, s, map[string]ocispec.Descriptor{"app:1": app}, ofSignature, other, signature))
	got := trees(t, layout, site)
	if len(got) != 1 || got[0].Name != "app:1" || len(got[0].Missing) > 0 {
		t.Fatalf("images: %v", got)
	}
	var digests []digest.Digest
	for _, r := range got[0].Referrers {
		digests = append(digests, r.Digest)
	}
	if diff := cmp.Diff([]digest.Digest{signature.Digest, ofSignature.Digest}, digests); diff != "" {
		t.Errorf("referrers (-want +got):\n%s", diff)
	}
	if got[0].Referrers[0].ArtifactType != "application/vnd.example.signature" || got[0].Referrers[0].Subject != app.Digest {
		t.Errorf("the referrer is %v", got[0].Referrers[0])
	}
}

// layoutOf makes an OCI layout as other tools do: blobs first, index.json last.
func layoutOf(t testing.TB, s bundletest.Store, named map[string]ocispec.Descriptor, unnamed ...ocispec.Descriptor) []byte {
	t.Helper()
	var files []file
	for d, content := range s {
		files = append(files, file{name: blobPath(d), content: string(content)})
	}
	index := ocispec.Index{MediaType: ocispec.MediaTypeImageIndex}
	for name, d := range named {
		d.Annotations = map[string]string{ocispec.AnnotationRefName: name}
		index.Manifests = append(index.Manifests, d)
	}
	index.Manifests = append(index.Manifests, unnamed...)
	raw, err := json.Marshal(index)
	if err != nil {
		t.Fatal(err)
	}
	return tarOf(t, append(files, layoutFile, file{name: "index.json", content: string(raw)})...)
}

// Tools that export one platform leave the others out, and say so nowhere.
func TestPlatformsThatAreNotWholeAreLeftOutOfOtherLayouts(t *testing.T) {
	f := newFleet()
	files := make(bundletest.Store)
	for d, content := range f.Store {
		if d != digest.FromString("redis for arm64") { // its manifest is there
			files[d] = content
		}
	}
	site := make(bundletest.Store)
	site[f.arm64.Digest] = f.Store[f.arm64.Digest] // a cache has manifests of platforms that nobody pulled
	_, layout := unpack(t, site, layoutOf(t, files, map[string]ocispec.Descriptor{"docker.io/library/redis:7": f.index}))
	redis := trees(t, layout, site)[0]
	if len(redis.Missing) > 0 || len(redis.Platforms) != 1 || redis.Platforms[0].Digest != f.amd64.Digest {
		t.Errorf("missing %v, platforms %v", redis.Missing, redis.Platforms)
	}
	left := []digest.Digest{redis.LeftOut[0].Digest, redis.LeftOut[1].Digest}
	if diff := cmp.Diff([]digest.Digest{f.arm64.Digest, f.attestation.Digest}, left); diff != "" {
		t.Errorf("left out (-want +got):\n%s", diff)
	}

	delete(files, digest.FromString("redis for amd64"))
	_, layout = unpack(t, make(bundletest.Store), layoutOf(t, files, map[string]ocispec.Descriptor{"docker.io/library/redis:7": f.index}))
	for _, err := range layout.Resolve(files.Manifest, files.Has) {
		if err == nil || !strings.Contains(err.Error(), "docker.io/library/redis:7") || !strings.Contains(err.Error(), "platforms") {
			t.Errorf("an image without a whole platform: %v", err)
		}
	}
}
