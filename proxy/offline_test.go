package proxy_test

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/cache"
	"github.com/larder-registry/larder/proxy"
	"github.com/larder-registry/larder/upstream"
	"github.com/larder-registry/larder/upstream/ecrtest"
	"github.com/larder-registry/larder/upstream/guard/guardtest"
)

// newSea returns a rig whose upstream can be offline. Its endpoints, those of AWS's APIs
// included, are names, so that each connection begins with a look-up, and lookups counts
// all of them.
func newSea(t *testing.T, set settings) (r *rig, offline *atomic.Bool, lookups *atomic.Int64) {
	t.Helper()
	offline, lookups = new(atomic.Bool), new(atomic.Int64)
	set.offline, set.resolver = offline, guardtest.CountingResolver(t, [4]byte{127, 0, 0, 1}, lookups)
	return newRig(t, set), offline, lookups
}

// miss returns the path of the i-th request for what a host's registry has not cached, and its
// error's code. The requests name the host in the parameter ns, in the path, or not at all.
func miss(host string, i int) (path, code string) {
	d := digest.FromString(fmt.Sprint(i))
	switch repo := fmt.Sprintf("team/other%d", i); i % 5 {
	case 0:
		path, code = manifestPath(app, fmt.Sprintf("v%d", i+10)), "MANIFEST_UNKNOWN"
	case 1:
		path, code = manifestPath(app, d.String()), "MANIFEST_UNKNOWN"
	case 2:
		path, code = blobPath(app, d), "BLOB_UNKNOWN"
	case 3:
		path, code = "/v2/"+app+"/referrers/"+d.String(), "MANIFEST_UNKNOWN"
	default:
		path, code = "/v2/"+repo+"/tags/list", "NAME_UNKNOWN"
	}
	switch i % 3 {
	case 0:
		path += "?ns=" + host
	case 1:
		path = strings.Replace(path, "/v2/", "/v2/"+host+"/", 1)
	}
	return path, code
}

func TestMissOfAnOfflineUpstreamIsAnsweredWithoutTheNetwork(t *testing.T) {
	r, offline, lookups := newSea(t, settings{})
	image := r.addImage("v1", ecrtest.Random(1, 100_000))
	layer := blobPath(app, image.Blobs[0].Digest)
	for _, path := range []string{manifestPath(app, "v1"), layer} {
		wantStatus(t, r.get(path), http.StatusOK)
	}
	later := r.addImage("v2", ecrtest.Random(2, 1000))
	if lookups.Load() == 0 {
		t.Fatal("nothing was looked up: the test counts nothing")
	}

	offline.Store(true)
	r.client.CutOffline()
	before := lookups.Load()
	check := func() {
		t.Helper()
		for i := range 1000 {
			path, code := miss(r.ecr.Host(), i)
			a, head := r.get(path), r.head(path)
			wantError(t, a, http.StatusNotFound, code)
			wantStatus(t, head, http.StatusNotFound)
			if message := "larder online " + r.ecr.Host(); !bytes.Contains(a.body, []byte(message)) {
				t.Fatalf("%s: %s does not say what to do: %q", path, a.body, message)
			}
		}
		for _, path := range []string{manifestPath(app, "v1"), manifestPath(app, image.Root.Digest.String()), layer} {
			for _, a := range []answer{r.get(path), r.head(path)} {
				wantStatus(t, a, http.StatusOK)
				wantHeader(t, a, "X-Cache", "HIT")
			}
		}
		a := r.get("/v2/" + app + "/tags/list")
		wantHeader(t, a, "X-Cache", "HIT")
		if got := strings.Join(tagsOf(t, a, app), " "); got != "v1" {
			t.Errorf("the tags are %s, want those in the cache", got)
		}
		if n := lookups.Load() - before; n != 0 {
			t.Errorf("%d look-ups", n)
		}
	}
	check()
	r.restart()
	check()

	offline.Store(false)
	a := r.get(manifestPath(app, "v2"))
	wantStatus(t, a, http.StatusOK)
	wantHeader(t, a, "Docker-Content-Digest", later.Root.Digest.String())
	if lookups.Load() == before {
		t.Error("an upstream that is online again was not asked")
	}
}

// In synctest's bubble time passes only while everything waits.
func TestMissOfAnOfflineUpstreamWaitsForNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const host = "registry.example.com"
		store, err := cache.Open(t.TempDir(), cache.Options{
			Log:  slog.New(slog.DiscardHandler),
			Tags: cache.Freshness{TTL: time.Minute, Offline: func(string) (bool, time.Time) { return true, time.Time{} }},
		})
		if err != nil {
			t.Fatal(err)
		}
		client := upstream.NewClient(upstream.Options{
			Lookup:  func(string) (upstream.Config, bool) { return upstream.Config{Host: host}, true },
			Offline: func(string) bool { return true },
			Log:     slog.New(slog.DiscardHandler),
		})
		registry, err := client.Registry(host)
		if err != nil {
			t.Fatal(err)
		}
		handler := proxy.New(proxy.Options{
			Upstreams: func(string, string) (proxy.Source, error) {
				return proxy.Source{Upstream: registry, OpenBlob: openBlob(registry), Timeout: time.Minute}, nil
			},
			Default: host,
			Store:   store,
			Log:     slog.New(slog.DiscardHandler),
		})
		<-store.Loaded()
		began := time.Now()
		for i := range 1000 {
			path, code := miss(host, i)
			for _, method := range []string{http.MethodGet, http.MethodHead} {
				w := httptest.NewRecorder()
				handler.ServeHTTP(w, httptest.NewRequest(method, path, http.NoBody))
				if w.Code != http.StatusNotFound || method == http.MethodGet && !strings.Contains(w.Body.String(), code) {
					t.Fatalf("%s %s: %d %s", method, path, w.Code, w.Body)
				}
			}
		}
		if waited := time.Since(began); waited > 0 {
			t.Errorf("1,000 misses waited %v", waited)
		}
		if err := errors.Join(store.Close(), client.Close()); err != nil {
			t.Error(err)
		}
	})
}

func TestOfflineMissIsLoggedAsAnyAnswer(t *testing.T) {
	var log bytes.Buffer
	r, offline, _ := newSea(t, settings{log: &log})
	offline.Store(true)
	wantStatus(t, r.get(manifestPath(app, "v1")), http.StatusNotFound)
	r.server.Close()
	if got := log.String(); strings.Contains(got, "WARN") || !strings.Contains(got, "is offline") {
		t.Errorf("the log: %s", got)
	}
}
