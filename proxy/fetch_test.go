package proxy_test

import (
	"errors"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/larder-registry/larder/cache"
	"github.com/larder-registry/larder/upstream/ecrtest"
)

// What a pin is missing is fetched through these, without a client.
func TestFetchCachesContentWithoutAClient(t *testing.T) {
	r := newRig(t, settings{timeout: 5 * time.Second})
	image := r.addImage("v1", ecrtest.Random(1, 100_000))
	repo := cache.Repository{Upstream: r.ecr.Host(), Name: app}
	m, err := r.proxy.FetchManifest(t.Context(), repo, image.Root.Digest)
	if err != nil || m.Digest != image.Root.Digest || m.Raw == nil {
		t.Fatalf("fetched the manifest %s, %v", m.Digest, err)
	}
	for _, blob := range image.Blobs {
		for _, want := range []int64{blob.Size, 0} {
			if n, err := r.proxy.FetchBlob(t.Context(), repo, blob.Digest, blob.Size); err != nil || n != want {
				t.Fatalf("fetched %d bytes, %v; want %d", n, err, want)
			}
		}
	}
	r.ecr.Stop()
	wantHeader(t, r.get(manifestPath(app, image.Root.Digest.String())), "X-Cache", "HIT")
	for _, blob := range image.Blobs {
		wantHeader(t, r.get(blobPath(app, blob.Digest)), "X-Cache", "HIT")
	}
}

func TestFetchFromAnUnknownUpstreamFails(t *testing.T) {
	r := newRig(t, settings{})
	repo := cache.Repository{Upstream: "registry.example", Name: app}
	if _, err := r.proxy.FetchManifest(t.Context(), repo, digest.FromString("")); err == nil {
		t.Error("a manifest was fetched")
	}
	if _, err := r.proxy.FetchBlob(t.Context(), repo, digest.FromString(""), 0); err == nil {
		t.Error("a blob was fetched")
	}
}

func TestFetchFailsIfTheCacheCannotKeepTheBlob(t *testing.T) {
	r := newRig(t, settings{})
	blob := r.addBlob(app, ecrtest.Random(1, 100_000))
	partial := filepath.Join(r.dir, "partial", "sha256-"+blob.Digest.Encoded())
	if err := os.MkdirAll(filepath.Join(partial, "folder"), 0o750); err != nil { // which is not replaced
		t.Fatal(err)
	}
	repo := cache.Repository{Upstream: r.ecr.Host(), Name: app}
	if _, err := r.proxy.FetchBlob(t.Context(), repo, blob.Digest, blob.Size); !errors.Is(err, unix.EISDIR) {
		t.Errorf("fetch: %v", err)
	}
	if err := os.RemoveAll(partial); err != nil { // the folder is checked at the end
		t.Fatal(err)
	}
}

func TestAskedTagStaysWhatItIsForClients(t *testing.T) {
	r := newRig(t, settings{cache: cache.Options{Tags: cache.Freshness{TTL: time.Hour}}})
	before := r.addImage("v1", ecrtest.Random(1, 1000))
	wantHeader(t, r.get(manifestPath(app, "v1")), "Docker-Content-Digest", before.Root.Digest.String())
	after := r.addImage("v1", ecrtest.Random(2, 1000))
	m, err := r.proxy.AskTag(t.Context(), cache.Repository{Upstream: r.ecr.Host(), Name: app}, "v1")
	if err != nil || m.Digest != after.Root.Digest {
		t.Errorf("asked: %s, %v", m.Digest, err)
	}
	wantHeader(t, r.get(manifestPath(app, "v1")), "Docker-Content-Digest", before.Root.Digest.String())
}

// So clients share the line equally.
func TestBlobIsFetchedForTheClientByItsAddress(t *testing.T) {
	r := newRig(t, settings{})
	repo := cache.Repository{Upstream: r.ecr.Host(), Name: app}
	wantStatus(t, r.get(manifestPath(app, r.addImage("v1", ecrtest.Random(1, 1000)).Root.Digest.String())), http.StatusOK)
	image := r.addImage("v2", ecrtest.Random(2, 1000))
	if _, err := r.proxy.FetchBlob(t.Context(), repo, image.Blobs[0].Digest, 0); err != nil {
		t.Fatal(err)
	}
	if client := r.askedFor.Load(); client != nil {
		t.Errorf("without a client a blob is fetched for %v", client)
	}
	wantStatus(t, r.get(blobPath(app, image.Blobs[1].Digest)), http.StatusOK)
	if client := r.askedFor.Load(); client != "127.0.0.1" {
		t.Errorf("a blob is fetched for %v", client)
	}
}

// A request that nobody waits for is marked, so that it goes after those of clients.
func TestUnattendedFetchesAreMarked(t *testing.T) {
	r := newRig(t, settings{})
	repo := cache.Repository{Upstream: r.ecr.Host(), Name: app}
	for i, unattended := range []bool{false, true} {
		ctx := t.Context()
		if unattended {
			ctx = cache.Unattended(ctx)
		}
		image := r.addImage("v1", ecrtest.Random(uint64(i), 1000))
		blob := image.Blobs[0]
		for _, fetch := range []func() error{
			func() error { _, err := r.proxy.AskTag(ctx, repo, "none"); return err },
			func() error { _, err := r.proxy.FetchManifest(ctx, repo, image.Root.Digest); return err },
			func() error { _, err := r.proxy.FetchBlob(ctx, repo, blob.Digest, blob.Size); return err },
		} {
			r.background.Store(0)
			if err := fetch(); err != nil && !errors.Is(err, fs.ErrNotExist) {
				t.Fatal(err)
			}
			if got := r.background.Load() > 0; got != unattended {
				t.Errorf("unattended: %t; marked: %t", unattended, got)
			}
		}
	}
}
