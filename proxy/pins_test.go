package proxy_test

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/cache"
	"github.com/larder-registry/larder/upstream/ecrtest"
)

// keepPins has the Larder look after its pins until the test, or a call of what
// it returns, ends that.
func (r *rig) keepPins() (end func()) {
	ctx, cancel := context.WithCancel(r.t.Context())
	var done sync.WaitGroup
	done.Go(func() { r.proxy.KeepPins(ctx) })
	end = sync.OnceFunc(func() {
		cancel()
		done.Wait()
	})
	r.t.Cleanup(end)
	return end
}

func TestDamagedPinnedBlobIsFetchedAtOnce(t *testing.T) {
	r := newRig(t, settings{})
	image := r.addImage("v1", ecrtest.Random(1, 100_000), ecrtest.Random(2, 100_000))
	wantStatus(t, r.get(manifestPath(app, "v1")), http.StatusOK)
	for _, blob := range image.Blobs {
		r.cache(blobPath(app, blob.Digest))
	}
	if err := r.store.Pin(cache.Repository{Upstream: r.ecr.Host(), Name: app}, "v1"); err != nil {
		t.Fatal(err)
	}
	end := r.keepPins()
	for _, damaged := range []digest.Digest{image.Blobs[0].Digest, image.Root.Digest} {
		r.flip(damaged)
	}
	fills := r.meter.count("larder.fills")
	if got, err := r.store.Scrub(t.Context(), nil); err != nil || got.Mismatches != 2 {
		t.Errorf("scrub: %+v, %v", got, err)
	}
	r.meter.wait("larder.fills", fills+1)
	end()
	r.ecr.Stop()
	r.restart()
	wantHeader(t, r.get(manifestPath(app, image.Root.Digest.String())), "X-Cache", "HIT")
	for _, blob := range image.Blobs {
		wantHeader(t, r.get(blobPath(app, blob.Digest)), "X-Cache", "HIT")
	}
}

func TestPinOfAllPlatformsFetchesThem(t *testing.T) {
	r := newRig(t, settings{})
	image, err := r.ecr.AddImage(app, "v1", ecrtest.Image{
		Layers:    []ecrtest.Layer{{Content: ecrtest.Random(1, 100_000)}},
		Platforms: []string{"linux/amd64", "linux/arm64"},
	})
	if err != nil {
		t.Fatal(err)
	}
	wantStatus(t, r.get(manifestPath(app, "v1")), http.StatusOK) // the index alone
	r.keepPins()
	var none struct{}
	if status := r.api(http.MethodPut, "pins", r.ecr.Host()+"/"+app+":v1&platforms=some", &none); status != http.StatusBadRequest {
		t.Errorf("some platforms: %d", status)
	}
	if status := r.api(http.MethodPut, "pins", r.ecr.Host()+"/"+app+":v1&platforms=all", nil); status != http.StatusNoContent {
		t.Errorf("all platforms: %d", status)
	}
	r.meter.wait("larder.fills", int64(len(image.Blobs)))
	if lacking, err := r.store.Lacking(); err != nil || len(lacking) > 0 {
		t.Errorf("lacking: %v, %v", lacking, err)
	}
	var pins []cache.PinInfo
	r.api(http.MethodGet, "pins", "", &pins)
	if len(pins) != 1 || pins[0] != (cache.PinInfo{Image: r.ecr.Host() + "/" + app + ":v1", AllPlatforms: true}) {
		t.Errorf("pins: %v", pins)
	}
}

// The index alone does not tell what its platforms take.
func TestPinOfAllPlatformsThatDoNotFitIsRefused(t *testing.T) {
	r := newRig(t, settings{cache: cache.Options{MaxSize: 80 << 20}})
	_, err := r.ecr.AddImage(app, "v1", ecrtest.Image{
		Layers:    []ecrtest.Layer{{Content: ecrtest.Random(1, 40<<20)}},
		Platforms: []string{"linux/amd64", "linux/arm64"},
	})
	if err != nil {
		t.Fatal(err)
	}
	wantStatus(t, r.get(manifestPath(app, "v1")), http.StatusOK)
	var refused struct{ Error string }
	status := r.api(http.MethodPut, "pins", r.ecr.Host()+"/"+app+":v1&platforms=all", &refused)
	if status != http.StatusInsufficientStorage || !strings.Contains(refused.Error, "of max_size") {
		t.Errorf("%d %q", status, refused.Error)
	}
	if pins, err := r.store.Pins(); err != nil || len(pins) > 0 {
		t.Errorf("pins: %v, %v", pins, err)
	}
}

// The first try fails; what makes it try again here is another pin rather than
// the time.
func TestWhatAPinLacksIsTriedAgain(t *testing.T) {
	r := newRig(t, settings{cache: cache.Options{Retry: hasty.Retry}})
	image := r.addImage("v1", ecrtest.Random(1, 100_000))
	other := r.addImage("v2", ecrtest.Random(2, 1000))
	for _, tag := range []string{"v1", "v2"} {
		wantStatus(t, r.get(manifestPath(app, tag)), http.StatusOK)
	}
	for _, blob := range append(image.Blobs, other.Blobs...) {
		r.cache(blobPath(app, blob.Digest))
	}
	repo := cache.Repository{Upstream: r.ecr.Host(), Name: app}
	if err := r.store.Pin(repo, "v1"); err != nil {
		t.Fatal(err)
	}
	heal := r.ecr.Inject(ecrtest.Fault{On: ecrtest.Storage, Status: http.StatusServiceUnavailable})
	r.flip(image.Blobs[0].Digest)
	if _, err := r.store.Scrub(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	r.keepPins()
	fills := r.meter.count("larder.fills")
	r.meter.wait("larder.fills", fills+1) // one that failed
	heal()
	if err := r.store.Pin(repo, "v2"); err != nil {
		t.Fatal(err)
	}
	r.meter.wait("larder.fills", fills+2)
	wantHeader(t, r.get(blobPath(app, image.Blobs[0].Digest)), "X-Cache", "HIT")
}
