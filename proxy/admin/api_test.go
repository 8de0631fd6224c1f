package admin_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/larder-registry/larder/cache"
	"github.com/larder-registry/larder/proxy"
	"github.com/larder-registry/larder/proxy/admin"
	"github.com/larder-registry/larder/upstream"
)

const (
	imageV1         = "registry.test/team/app:v1"
	digestOfNothing = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
)

func TestAPIListsPinsAndRemovesImages(t *testing.T) {
	r := newRig(t, cache.Options{}, admin.Options{})
	var images []cache.ImageInfo
	if status := r.api(http.MethodGet, "images", "", &images); status != http.StatusOK || images == nil || len(images) > 0 {
		t.Errorf("images of an empty cache: %d %v", status, images)
	}
	img := newImage(t, 10_000)
	r.pull("v1", img)

	if status := r.api(http.MethodPut, "pins", imageV1, nil); status != http.StatusNoContent {
		t.Errorf("pin: %d", status)
	}
	var pins []cache.PinInfo
	if r.api(http.MethodGet, "pins", "", &pins); len(pins) != 1 || pins[0] != (cache.PinInfo{Image: imageV1, Digest: img.root}) {
		t.Errorf("pins: %v", pins)
	}
	if r.api(http.MethodGet, "images", "", &images); len(images) != 1 {
		t.Fatalf("images: %v", images)
	}
	got := images[0]
	if got.Name() != imageV1 || got.Digest != img.root || !got.Complete || !got.Pinned || got.Bytes < img.bytes || got.Used.IsZero() {
		t.Errorf("image: %+v", got)
	}
	var stats admin.Stats
	r.api(http.MethodGet, "stats", "", &stats)
	if want := (cache.Stats{Bytes: stats.Bytes, Index: stats.Index, Free: stats.Free, Blobs: 3, Images: 1, Pinned: 1}); stats.Stats != want || stats.Bytes <= got.Bytes {
		t.Error(cmp.Diff(want, stats.Stats))
	}

	var refused struct{ Error string }
	if status := r.api(http.MethodDelete, "images", imageV1, &refused); status != http.StatusConflict || !strings.Contains(refused.Error, "pinned") {
		t.Errorf("remove a pinned image: %d %q", status, refused.Error)
	}
	if status := r.api(http.MethodDelete, "pins", imageV1, nil); status != http.StatusNoContent {
		t.Errorf("unpin: %d", status)
	}
	var removed admin.Removed
	if status := r.api(http.MethodDelete, "images", "REGISTRY.test/team/app:v1", &removed); status != http.StatusOK || removed.Freed != got.Bytes {
		t.Errorf("remove: %d, freed %d of %d", status, removed.Freed, got.Bytes)
	}
}

func TestAPIRefusesInvalidAndUnknownImages(t *testing.T) {
	r := newRig(t, cache.Options{}, admin.Options{})
	for _, c := range []struct {
		image  string
		status int
	}{
		{"", http.StatusBadRequest},
		{"busybox", http.StatusBadRequest},
		{"docker.io/library/busybox", http.StatusBadRequest},
		{"docker.io/library/busybox:", http.StatusBadRequest},
		{"docker.io:443/library/busybox", http.StatusBadRequest},
		{"docker.io/library/../busybox:v1", http.StatusBadRequest},
		{"docker.io/Library/busybox:v1", http.StatusBadRequest},
		{"docker.io/library/busybox@sha256:12", http.StatusBadRequest},
		{"docker.io/library/busybox@v1", http.StatusBadRequest},
		{"docker.io/library/busybox:v1@" + digestOfNothing, http.StatusBadRequest},
		{"docker.io/" + strings.Repeat("a", 256) + ":v1", http.StatusBadRequest},
		{"docker.io/library/busybox:v1", http.StatusNotFound},
		{"[::1]:5000/busybox:v1", http.StatusNotFound},
		{"docker.io/library/busybox@" + digestOfNothing, http.StatusNotFound},
	} {
		for _, ask := range []struct{ method, what string }{
			{http.MethodDelete, "images"}, {http.MethodPut, "pins"}, {http.MethodDelete, "pins"},
		} {
			var refused struct{ Error string }
			if status := r.api(ask.method, ask.what, c.image, &refused); status != c.status || refused.Error == "" {
				t.Errorf("%s %s %q: %d %q, want %d", ask.method, ask.what, c.image, status, refused.Error, c.status)
			}
		}
	}
}

func TestAPIRefusesPinsThatDoNotFit(t *testing.T) {
	r := newRig(t, cache.Options{MaxSize: 50 << 20}, admin.Options{})
	r.tag("v1", newImage(t, 30<<20))
	var refused struct{ Error string }
	status := r.api(http.MethodPut, "pins", imageV1, &refused)
	if status != http.StatusInsufficientStorage || !strings.Contains(refused.Error, "of max_size") {
		t.Errorf("pin: %d %q", status, refused.Error)
	}
	if pins, err := r.store.Pins(); err != nil || len(pins) > 0 {
		t.Errorf("pins: %v, %v", pins, err)
	}
}

func TestAPIPinsAllPlatformsAfterFetchingTheirManifests(t *testing.T) {
	var fetched []string
	r := newRig(t, cache.Options{}, admin.Options{FetchManifests: func(_ context.Context, repo cache.Repository, reference string) error {
		fetched = append(fetched, repo.String()+":"+reference)
		return errors.New("a pin does not need this to succeed")
	}})
	img := newImage(t, 1000)
	r.tag("v1", img)
	var refused struct{ Error string }
	if status := r.api(http.MethodPut, "pins", imageV1+"&platforms=some", &refused); status != http.StatusBadRequest || refused.Error == "" {
		t.Errorf("pin some platforms: %d %q", status, refused.Error)
	}
	if status := r.api(http.MethodPut, "pins", imageV1+"&platforms=all", nil); status != http.StatusNoContent {
		t.Errorf("pin all platforms: %d", status)
	}
	if diff := cmp.Diff([]string{imageV1}, fetched); diff != "" {
		t.Errorf("fetched (-want +got):\n%s", diff)
	}
	var pins []cache.PinInfo
	r.api(http.MethodGet, "pins", "", &pins)
	if len(pins) != 1 || pins[0] != (cache.PinInfo{Image: imageV1, Digest: img.root, AllPlatforms: true}) {
		t.Errorf("pins: %v", pins)
	}
}

func TestAPIReportsTheActivityOfTheDaemon(t *testing.T) {
	r := newRig(t, cache.Options{}, admin.Options{Upstreams: func() []upstream.Status {
		return []upstream.Status{{Host: "registry.test", Auth: "ecr"}}
	}})
	traffic := proxy.Traffic{Requests: proxy.Requests{Hit: 1, Miss: 2, Stale: 3, Bypass: 4, Failed: 5}, Served: 6, Passed: 7, Runtimes: []proxy.Runtime{{Name: "containerd"}}}
	r.clients.set(traffic, proxy.Fill{Waiting: 8})
	var activity admin.Activity
	if status := r.api(http.MethodGet, "activity", "", &activity); status != http.StatusOK {
		t.Errorf("activity: %d", status)
	}
	if !reflect.DeepEqual(activity.Traffic, traffic) || activity.Bytes == 0 || activity.Free == 0 {
		t.Errorf("activity: %+v", activity)
	}
	if fills := activity.FillsRunning; len(fills) != 1 || fills[0].Waiting != 8 {
		t.Errorf("fills: %+v", fills)
	}
	if all := activity.Upstreams; len(all) != 1 || all[0] != (upstream.Status{Host: "registry.test", Auth: "ecr"}) {
		t.Errorf("upstreams: %+v", all)
	}
	var stats admin.Stats
	if r.api(http.MethodGet, "stats", "", &stats); stats.Activity == nil || !reflect.DeepEqual(stats.Activity.Traffic, traffic) {
		t.Errorf("stats: %+v", stats)
	}
}

func TestAPIWithoutADaemonHasNoActivity(t *testing.T) {
	r := newRig(t, cache.Options{}, admin.Options{})
	for path, status := range map[string]int{"/api/v1/activity": http.StatusNotFound, "/api/v1/stats": http.StatusOK} {
		w := httptest.NewRecorder()
		admin.API(r.store).ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, http.NoBody))
		if w.Code != status || strings.Contains(w.Body.String(), `"activity"`) {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
	}
}

func TestAPIScrubReportsItsProgress(t *testing.T) {
	r := newRig(t, cache.Options{}, admin.Options{})
	img := newImage(t, 10_000)
	r.pull("v1", img)
	r.damage(img.layer, img.blobs[img.layer])
	w := httptest.NewRecorder()
	r.admin.API().ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/api/v1/scrub", http.NoBody))
	var reports []admin.ScrubReport
	for lines := json.NewDecoder(w.Body); lines.More(); {
		var report admin.ScrubReport
		if err := lines.Decode(&report); err != nil {
			t.Fatal(err)
		}
		reports = append(reports, report)
	}
	if len(reports) < 2 || w.Code != http.StatusOK || !w.Flushed {
		t.Fatalf("%d %v", w.Code, reports)
	}
	last, all := reports[len(reports)-1], img.bytes+int64(len(img.raw))
	if last.Result == nil || last.Result.Bytes != all || last.Result.Mismatches != 1 || last.Done != all || last.Total != all || last.Error != "" {
		t.Errorf("last report: %+v, %+v; want one mismatch in %d bytes", last, last.Result, all)
	}
}

func TestAPIScrubEndsWithItsClient(t *testing.T) {
	r := newRig(t, cache.Options{}, admin.Options{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	w := httptest.NewRecorder()
	r.admin.API().ServeHTTP(w, httptest.NewRequestWithContext(ctx, http.MethodPost, "/api/v1/scrub", http.NoBody))
	if body := w.Body.String(); !strings.Contains(body, "context canceled") {
		t.Errorf("%s", body)
	}
}

func TestAPIOfAClosedStoreFails(t *testing.T) {
	r := newRig(t, cache.Options{}, admin.Options{})
	store := r.store
	r.restart()
	w := httptest.NewRecorder()
	admin.API(store).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/api/v1/images", http.NoBody))
	if w.Code < http.StatusInternalServerError {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}
