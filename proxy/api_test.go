package proxy_test

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/larder-registry/larder/cache"
	"github.com/larder-registry/larder/proxy"
	"github.com/larder-registry/larder/upstream/ecrtest"
)

// api asks /api/v1 about an image, or all if it is empty, and decodes the
// answer into v. Other parameters may follow the image.
func (r *rig) api(method, what, image string, v any) int {
	r.t.Helper()
	w := httptest.NewRecorder()
	target := "/api/v1/" + what
	if image != "" {
		image, more, _ := strings.Cut(image, "&")
		target += "?image=" + url.QueryEscape(image) + "&" + more
	}
	r.proxy.API().ServeHTTP(w, httptest.NewRequest(method, target, http.NoBody))
	if w.Code == http.StatusNoContent {
		return w.Code
	}
	if got := w.Header().Get("Content-Type"); got != "application/json" {
		r.t.Errorf("%s %s: Content-Type %q", method, target, got)
	}
	if err := json.Unmarshal(w.Body.Bytes(), v); err != nil {
		r.t.Errorf("%s %s: %v", method, target, err)
	}
	return w.Code
}

func TestAPITellsPinsAndRemovesImages(t *testing.T) {
	r := newRig(t, settings{})
	var images []cache.ImageInfo
	if status := r.api(http.MethodGet, "images", "", &images); status != http.StatusOK || images == nil || len(images) > 0 {
		t.Errorf("an empty cache: %d %v", status, images)
	}
	added := r.addImage("v1", ecrtest.Random(1, 10_000))
	if err := r.pull(t.Context(), "v1"); err != nil {
		t.Fatal(err)
	}
	r.restart() // which waits for what is being committed
	name := r.ecr.Host() + "/" + app + ":v1"

	if status := r.api(http.MethodPut, "pins", name, nil); status != http.StatusNoContent {
		t.Errorf("pin: %d", status)
	}
	if r.api(http.MethodGet, "images", "", &images); len(images) != 1 {
		t.Fatalf("images: %v", images)
	}
	got := images[0]
	if got.Name() != name || got.Digest != added.Root.Digest || !got.Complete || !got.Pinned || got.Bytes < 10_000 || got.Used.IsZero() {
		t.Errorf("%+v", got)
	}
	var stats cache.Stats
	r.api(http.MethodGet, "stats", "", &stats)
	if want := (cache.Stats{Bytes: stats.Bytes, Free: stats.Free, Blobs: 3, Images: 1, Pinned: 1}); stats != want || stats.Bytes <= got.Bytes {
		t.Error(cmp.Diff(want, stats))
	}

	var refused struct{ Error string }
	if status := r.api(http.MethodDelete, "images", name, &refused); status != http.StatusConflict || !strings.Contains(refused.Error, "pinned") {
		t.Errorf("remove what is pinned: %d %q", status, refused.Error)
	}
	if status := r.api(http.MethodDelete, "pins", name, nil); status != http.StatusNoContent {
		t.Errorf("unpin: %d", status)
	}
	var removed proxy.Removed
	if status := r.api(http.MethodDelete, "images", strings.ToUpper(r.ecr.Host())+"/"+app+":v1", &removed); status != http.StatusOK || removed.Freed != got.Bytes {
		t.Errorf("remove: %d, freed %d of %d", status, removed.Freed, got.Bytes)
	}
}

func TestAPIRefusesWhatIsNotAnImage(t *testing.T) {
	r := newRig(t, settings{})
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
		{"docker.io/" + strings.Repeat("a", 255) + ":v1", http.StatusBadRequest},
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

func TestAPIRefusesPinsBeyondTheBound(t *testing.T) {
	r := newRig(t, settings{cache: cache.Options{MaxSize: 50 << 20}})
	r.addImage("v1", ecrtest.Random(1, 30<<20))
	a := r.get(manifestPath(app, "v1"))
	wantStatus(t, a, http.StatusOK)
	var refused struct{ Error string }
	status := r.api(http.MethodPut, "pins", r.ecr.Host()+"/"+app+":v1", &refused)
	if status != http.StatusInsufficientStorage || !strings.Contains(refused.Error, "of max_size") {
		t.Errorf("%d %q", status, refused.Error)
	}
}

func TestAPITellsWhatTheDaemonDoes(t *testing.T) {
	r := newRig(t, settings{})
	added := r.addImage("v1", ecrtest.Random(1, 10_000))
	if err := r.pull(t.Context(), "v1"); err != nil {
		t.Fatal(err)
	}
	r.meter.wait("larder.fills", 2)
	hit := r.get(blobPath(app, added.Blobs[0].Digest))
	wantHeader(t, hit, "X-Cache", "HIT")
	failed := r.get(manifestPath(app, "v2"))
	r.server.Close() // an answer is counted when it is over
	var state proxy.State
	if status := r.api(http.MethodGet, "activity", "", &state); status != http.StatusOK {
		t.Errorf("activity: %d", status)
	}
	activity := state.Activity
	misses := int64(1 + len(added.Blobs))
	sent := added.Root.Size + int64(len(hit.body)+len(failed.body))
	fetched := int64(0)
	for _, blob := range added.Blobs {
		fetched += blob.Size
	}
	want := proxy.Activity{Activity: activity.Activity, Requests: proxy.Requests{Hit: 1, Miss: misses, Failed: 1}, Served: sent + fetched}
	if diff := cmp.Diff(want, activity); diff != "" || activity.Fetched != fetched || activity.Bytes == 0 || activity.Free == 0 {
		t.Errorf("%s%+v, want %d bytes fetched", diff, activity, fetched)
	}
	if state.FillsRunning == nil || len(state.Upstreams) != 1 || state.Upstreams[0].Host != "registry.test" {
		t.Errorf("fills %v, upstreams %v", state.FillsRunning, state.Upstreams)
	}
	var stats proxy.Stats
	if r.api(http.MethodGet, "stats", "", &stats); stats.Activity == nil || stats.Activity.Served != sent+fetched || stats.Images != 1 {
		t.Errorf("%+v", stats)
	}
}

func TestAPIScrubReportsAsItGoes(t *testing.T) {
	r := newRig(t, settings{})
	blob := r.addBlob(app, ecrtest.Random(1, 10_000))
	r.cache(blobPath(app, blob.Digest))
	r.flip(blob.Digest)
	w := httptest.NewRecorder()
	r.proxy.API().ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/api/v1/scrub", http.NoBody))
	var reports []proxy.ScrubReport
	for lines := json.NewDecoder(w.Body); lines.More(); {
		var report proxy.ScrubReport
		if err := lines.Decode(&report); err != nil {
			t.Fatal(err)
		}
		reports = append(reports, report)
	}
	if len(reports) < 2 || w.Code != http.StatusOK || !w.Flushed {
		t.Fatalf("%d %v", w.Code, reports)
	}
	last := reports[len(reports)-1]
	if last.Result == nil || *last.Result != (cache.ScrubResult{Bytes: 10_000, Mismatches: 1}) || last.Done != 10_000 || last.Total != 10_000 || last.Error != "" {
		t.Errorf("%+v", last)
	}
}

func TestAPIScrubEndsWithItsClient(t *testing.T) {
	r := newRig(t, settings{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	w := httptest.NewRecorder()
	r.proxy.API().ServeHTTP(w, httptest.NewRequestWithContext(ctx, http.MethodPost, "/api/v1/scrub", http.NoBody))
	if body := w.Body.String(); !strings.Contains(body, "context canceled") {
		t.Errorf("%s", body)
	}
}

func TestAPIOfAClosedStoreIsAnError(t *testing.T) {
	r := newRig(t, settings{})
	store := r.store
	r.restart()
	w := httptest.NewRecorder()
	proxy.API(store).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/api/v1/images", http.NoBody))
	if w.Code < http.StatusInternalServerError {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}
