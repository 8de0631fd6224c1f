package cache

import (
	"context"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func TestTypeOfAManifestIsThatOfTheDocument(t *testing.T) {
	const (
		dockerImage = "application/vnd.docker.distribution.manifest.v2+json"
		dockerList  = "application/vnd.docker.distribution.manifest.list.v2+json"
		artifact    = "application/vnd.oci.artifact.manifest.v1+json"
	)
	config := `"config": {"digest": "` + string(digest.FromString("")) + `"}`
	for raw, want := range map[string]string{
		`{"mediaType": "` + dockerImage + `", ` + config + `, "layers": []}`: dockerImage,
		`{"mediaType": "` + dockerList + `", "manifests": []}`:               dockerList,
		`{` + config + `, "layers": []}`:                                     ocispec.MediaTypeImageManifest,
		`{"manifests": []}`:                                                  ocispec.MediaTypeImageIndex,
		`{"mediaType": "` + artifact + `", "blobs": []}`:                     artifact,
		`{"mediaType": "` + artifact + `"}`:                                  artifact,
		// Keys that nothing is decided by may be what they like.
		`{"manifests": [], "annotations": {"Size": "1", "size": "2", "size": "3"}}`: ocispec.MediaTypeImageIndex,
	} {
		for _, said := range []string{want, "", "application/octet-stream", "application/json", "text/plain", "text/html", "APPLICATION/JSON"} {
			dir := t.TempDir()
			s := openStore(t, dir, Options{Tags: freshness})
			ask := func(context.Context, string, bool) (Manifest, error) {
				return Manifest{Digest: digest.FromString(raw), MediaType: said, Raw: []byte(raw)}, nil
			}
			if m, _, err := s.Tag(t.Context(), team, "v1", ask); err != nil || m.MediaType != want {
				t.Errorf("%s as %q: %q, %v", raw, said, m.MediaType, err)
			}
			closeStore(t, s)
			s = openStore(t, dir, Options{Tags: freshness})
			if m, ok := s.ManifestHere(team, digest.FromString(raw)); !ok || m.MediaType != want {
				t.Errorf("%s as %q: %q, %t after a restart", raw, said, m.MediaType, ok)
			}
		}
	}
}

func TestTypeInOtherCaseIsTheSame(t *testing.T) {
	s := openStore(t, t.TempDir(), Options{})
	img := newImage("a")
	ask := func(context.Context, string, bool) (Manifest, error) {
		m := img.Manifest
		m.MediaType = "Application/VND.OCI.Image.Manifest.v1+JSON"
		return m, nil
	}
	if m, _, err := s.Manifest(t.Context(), team, img.Digest, ask); err != nil || m.MediaType != ocispec.MediaTypeImageManifest {
		t.Errorf("%q, %v", m.MediaType, err)
	}
}

// The record is of an earlier release, which believed the upstream.
func TestTypeInAnOldRecordIsCorrected(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir, Options{})
	img := newImage("a")
	pullDigest(t, s, team, img)
	rec, err := s.index.Blob(img.Digest)
	if err != nil {
		t.Fatal(err)
	}
	rec.MediaType = "text/html"
	if err := s.index.PutBlob(img.Digest, rec); err != nil {
		t.Fatal(err)
	}
	closeStore(t, s)
	s = openStore(t, dir, Options{})
	if m, ok := s.ManifestHere(team, img.Digest); !ok || m.MediaType != ocispec.MediaTypeImageManifest {
		t.Errorf("%q, %t", m.MediaType, ok)
	}
}
