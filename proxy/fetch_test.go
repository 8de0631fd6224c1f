package proxy_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/cache"
	"github.com/larder-registry/larder/upstream/ecrtest"
)

// What a pin is missing is fetched through these, without a client.
func TestFetchCachesContentWithoutAClient(t *testing.T) {
	r := newRig(t, settings{timeout: 5 * time.Second})
	image := r.addImage("v1", ecrtest.Random(1, 100_000))
	repo := cache.Repository{Upstream: r.ecr.Host(), Name: app}
	if err := r.proxy.FetchManifest(t.Context(), repo, image.Root.Digest); err != nil {
		t.Fatal(err)
	}
	for _, blob := range image.Blobs {
		if err := r.proxy.FetchBlob(t.Context(), repo, blob.Digest, blob.Size); err != nil {
			t.Fatal(err)
		}
	}
	r.meter.wait("larder.fills", int64(len(image.Blobs)))
	r.ecr.Stop()
	wantHeader(t, r.get(manifestPath(app, image.Root.Digest.String())), "X-Cache", "HIT")
	for _, blob := range image.Blobs {
		wantHeader(t, r.get(blobPath(app, blob.Digest)), "X-Cache", "HIT")
	}
}

func TestFetchFromAnUnknownUpstreamFails(t *testing.T) {
	r := newRig(t, settings{})
	repo := cache.Repository{Upstream: "registry.example", Name: app}
	if err := r.proxy.FetchManifest(t.Context(), repo, digest.FromString("")); err == nil {
		t.Error("a manifest was fetched")
	}
	if err := r.proxy.FetchBlob(t.Context(), repo, digest.FromString(""), 0); err == nil {
		t.Error("a blob was fetched")
	}
}

func TestFetchFailsIfTheCacheCannotKeepTheBlob(t *testing.T) {
	r := newRig(t, settings{})
	blob := r.addBlob(app, ecrtest.Random(1, 100_000))
	partial := filepath.Join(r.dir, "partial")
	if err := errors.Join(os.Remove(partial), os.WriteFile(partial, nil, 0o640)); err != nil { // a folder that is missing would be made again
		t.Fatal(err)
	}
	repo := cache.Repository{Upstream: r.ecr.Host(), Name: app}
	err := r.proxy.FetchBlob(t.Context(), repo, blob.Digest, blob.Size)
	if err == nil || !strings.Contains(err.Error(), "could not keep it") {
		t.Errorf("fetch: %v", err)
	}
	if err := errors.Join(os.Remove(partial), os.Mkdir(partial, 0o750)); err != nil { // the folder is checked at the end
		t.Fatal(err)
	}
}
