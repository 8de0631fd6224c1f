package proxy_test

import (
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/larder-registry/larder/cache"
	"github.com/larder-registry/larder/upstream/ecrtest"
)

// clock is the time of a store. A test sets it.
type clock struct {
	mu sync.Mutex // guards what follows
	t  time.Time
}

func newClock() *clock { return &clock{t: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)} }

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

// newTagRig is a rig whose tags are fresh for a minute, and stale for an hour.
func newTagRig(t *testing.T) (*rig, *clock) {
	t.Helper()
	c := newClock()
	return newRig(t, settings{cache: cache.Options{
		Now:  c.now,
		Tags: cache.Freshness{TTL: time.Minute, StaleIfError: time.Hour, Negative: 10 * time.Second},
	}}), c
}

func wantTag(t *testing.T, a answer, image *ecrtest.Added, state string) {
	t.Helper()
	wantStatus(t, a, http.StatusOK)
	wantHeader(t, a, "Docker-Content-Digest", image.Root.Digest.String())
	wantHeader(t, a, "X-Cache", state)
}

func TestFreshTagIsServedWithoutTheUpstream(t *testing.T) {
	r, clock := newTagRig(t)
	image := r.addImage("v1", ecrtest.Random(1, 10))
	wantTag(t, r.get(manifestPath(app, "v1")), image, "MISS")
	asked := r.ecr.Stats().Requests[ecrtest.Manifest]
	r.addImage("v1", ecrtest.Random(2, 10))
	clock.advance(59 * time.Second)
	wantTag(t, r.get(manifestPath(app, "v1")), image, "HIT")
	wantTag(t, r.head(manifestPath(app, "v1")), image, "HIT")
	if got := r.ecr.Stats().Requests[ecrtest.Manifest]; got != asked {
		t.Errorf("the upstream was asked %d times more", got-asked)
	}
}

// The upstream holds back its answer to the first request. The other clients share that
// answer, or find it in the cache.
func TestOneHeadConfirmsATagForAll(t *testing.T) {
	r, clock := newTagRig(t)
	image := r.addImage("v1", ecrtest.Random(1, 10))
	wantTag(t, r.get(manifestPath(app, "v1")), image, "MISS")
	clock.advance(time.Minute)
	r.ecr.ResetStats()
	asked := make(chan struct{}, 1)
	release := r.ecr.Inject(ecrtest.Fault{On: ecrtest.Manifest, Times: 1, Hang: true, Notify: func() { asked <- struct{}{} }})

	var clients sync.WaitGroup
	answers := make([]answer, 16)
	for i := range answers {
		req := r.request(http.MethodGet, manifestPath(app, "v1"))
		clients.Go(func() { answers[i] = r.try(req) })
	}
	<-asked
	release()
	clients.Wait()
	for _, a := range answers {
		wantTag(t, a, image, "HIT")
	}
	stats := r.ecr.Stats()
	if stats.Requests[ecrtest.Manifest] != 1 || stats.Heads[ecrtest.Manifest] != 1 {
		t.Errorf("%d requests, of these %d HEAD; want one HEAD", stats.Requests[ecrtest.Manifest], stats.Heads[ecrtest.Manifest])
	}
}

func TestMovedTagIsNoticedAfterItsTTL(t *testing.T) {
	r, clock := newTagRig(t)
	wantStatus(t, r.get(manifestPath(app, "v1")+"?ns="+r.ecr.Host()), http.StatusNotFound)
	before := r.addImage("v1", ecrtest.Random(1, 10))
	clock.advance(10 * time.Second)
	wantTag(t, r.get(manifestPath(app, "v1")), before, "MISS")
	after := r.addImage("v1", ecrtest.Random(2, 10))
	wantTag(t, r.get(manifestPath(app, "v1")), before, "HIT")
	clock.advance(time.Minute)
	wantTag(t, r.head(manifestPath(app, "v1")), after, "MISS")
	wantTag(t, r.get(manifestPath(app, before.Root.Digest.String())), before, "HIT")
}

func TestTagIsStaleWhileTheUpstreamFails(t *testing.T) {
	t.Parallel()
	for name, fail := range map[string]func(*rig){
		"dead": func(r *rig) { r.ecr.Stop() },
		"broken": func(r *rig) {
			r.ecr.Inject(ecrtest.Fault{On: ecrtest.Manifest, Status: http.StatusInternalServerError})
		},
		"throttled": func(r *rig) { r.ecr.Inject(ecrtest.Fault{On: ecrtest.Manifest, Status: http.StatusTooManyRequests}) },
		"denied":    func(r *rig) { r.ecr.Inject(ecrtest.Fault{On: ecrtest.Manifest, Status: http.StatusForbidden}) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, clock := newTagRig(t)
			image := r.addImage("v1", ecrtest.Random(1, 10))
			wantTag(t, r.get(manifestPath(app, "v1")), image, "MISS")
			fail(r)
			clock.advance(59 * time.Minute)
			wantTag(t, r.get(manifestPath(app, "v1")), image, "STALE")
			wantTag(t, r.head(manifestPath(app, "v1")), image, "STALE")
			clock.advance(2 * time.Minute)
			if a := r.get(manifestPath(app, "v1")); a.StatusCode < 400 || a.StatusCode == http.StatusTooManyRequests {
				t.Errorf("an hour later: %s", a.Status)
			}
			wantTag(t, r.get(manifestPath(app, image.Root.Digest.String())), image, "HIT")
		})
	}
}

func TestDeletedTagIsForgotten(t *testing.T) {
	r, clock := newTagRig(t)
	image := r.addImage("v1", ecrtest.Random(1, 10))
	wantTag(t, r.get(manifestPath(app, "v1")), image, "MISS")
	r.ecr.Inject(ecrtest.Fault{On: ecrtest.Manifest, Status: http.StatusNotFound})
	clock.advance(time.Minute)
	wantError(t, r.get(manifestPath(app, "v1")), http.StatusNotFound, "MANIFEST_UNKNOWN")
	r.ecr.Stop()
	wantError(t, r.get(manifestPath(app, "v1")), http.StatusNotFound, "MANIFEST_UNKNOWN")
	clock.advance(time.Minute)
	wantError(t, r.get(manifestPath(app, "v1")), http.StatusServiceUnavailable, "UNAVAILABLE")
}

func TestMissingTagIsRememberedForItsTTL(t *testing.T) {
	r, clock := newTagRig(t)
	r.addImage("v1", ecrtest.Random(1, 10))
	for range 3 {
		wantError(t, r.get(manifestPath(app, "v2")), http.StatusNotFound, "MANIFEST_UNKNOWN")
	}
	if got := r.ecr.Stats().Requests[ecrtest.Manifest]; got != 1 {
		t.Errorf("the upstream was asked %d times, want once", got)
	}
	image := r.addImage("v2", ecrtest.Random(2, 10))
	clock.advance(10 * time.Second)
	wantTag(t, r.get(manifestPath(app, "v2")), image, "MISS")
}
