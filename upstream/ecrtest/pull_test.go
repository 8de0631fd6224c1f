package ecrtest_test

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/validate"

	"github.com/larder-registry/larder/upstream/ecrtest"
)

func TestGoContainerregistryPulls(t *testing.T) {
	server, c := start(t, ecrtest.Options{})
	added, err := server.AddImage("team/app", "v1", ecrtest.Image{
		Layers: []ecrtest.Layer{
			{Content: ecrtest.TarLayer("opt/small", 1, 1<<10)},
			{Content: ecrtest.TarLayer("opt/large", 2, 4<<20)},
		},
		Platforms: []string{"linux/amd64", "linux/arm64"},
		Artifact:  true,
	})
	if err != nil {
		t.Fatal(err)
	}
	host := strings.TrimPrefix(server.Endpoint, "http://")
	ref, err := name.NewTag(host+"/team/app:v1", name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	opts := []remote.Option{
		remote.WithContext(limited(t)),
		remote.WithAuth(&authn.Basic{Username: "AWS", Password: c.password}),
		remote.WithTransport(&http.Transport{DisableKeepAlives: true}),
	}
	index, err := remote.Index(ref, opts...)
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Index(index, validate.Fast); err != nil {
		t.Error(err)
	}
	for _, want := range added.Blobs {
		layer, err := remote.Layer(ref.Context().Digest(want.Digest.String()), opts...)
		if err != nil {
			t.Fatal(err)
		}
		wantBlob(t, layer, want.Size)
	}
	tags, err := remote.List(ref.Context(), opts...)
	if err != nil || len(tags) != 1 || tags[0] != "v1" {
		t.Errorf("tags %v, %v", tags, err)
	}
	referrers, err := remote.Referrers(ref.Context().Digest(added.Root.Digest.String()), opts...)
	if err != nil {
		t.Fatal(err)
	}
	m, err := referrers.IndexManifest()
	if err != nil || len(m.Manifests) != 1 || m.Manifests[0].Digest.String() != added.Artifact.Digest.String() {
		t.Errorf("referrers %v, %v", m, err)
	}
}

func wantBlob(t *testing.T, layer v1.Layer, size int64) {
	t.Helper()
	r, err := layer.Compressed() // which checks the digest
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if n, err := io.Copy(io.Discard, r); n != size || err != nil {
		t.Errorf("a blob of %d bytes: got %d, %v", size, n, err)
	}
}
