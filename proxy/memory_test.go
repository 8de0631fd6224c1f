package proxy_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/larder-registry/larder/cache"
	"github.com/larder-registry/larder/proxy"
	"github.com/larder-registry/larder/upstream"
)

// documents is a Larder in front of a registry that has large documents.
func documents(t *testing.T, registry http.HandlerFunc) *httptest.Server {
	t.Helper()
	fake := httptest.NewServer(registry)
	t.Cleanup(fake.Close)
	discard := slog.New(slog.DiscardHandler)
	store, err := cache.Open(t.TempDir(), cache.Options{ScrubEvery: -1, Log: discard})
	if err != nil {
		t.Fatal(err)
	}
	client := upstream.NewClient(upstream.Options{Lookup: func(host string) (upstream.Config, bool) {
		return upstream.Config{Host: host, Endpoint: fake.URL, Timeout: time.Minute}, true
	}})
	larder := httptest.NewServer(proxy.New(proxy.Options{
		Store:   store,
		Log:     discard,
		Default: "registry.test",
		Upstreams: func(host, _ string) (proxy.Source, error) {
			r, err := client.Registry(host)
			if err != nil {
				t.Error(err)
				return proxy.Source{}, err
			}
			return proxy.Source{Upstream: r, OpenBlob: openBlob(r), WithAdmission: upstream.WithAdmission, Timeout: time.Minute}, nil
		},
	}))
	t.Cleanup(func() {
		larder.Close()
		if err := store.Close(); err != nil {
			t.Error(err)
		}
		if err := client.Close(); err != nil {
			t.Error(err)
		}
	})
	return larder
}

// peak returns the largest heap, in bytes above that of the beginning, while all paths are requested at once with the
// memory limit of the chart. Each must be answered with 200.
func peak(t *testing.T, larder *httptest.Server, paths []string) uint64 {
	t.Helper()
	defer debug.SetMemoryLimit(debug.SetMemoryLimit(128 << 20))
	runtime.GC()
	var before, now runtime.MemStats
	runtime.ReadMemStats(&before)
	var asking sync.WaitGroup
	ended := make(chan struct{})
	for _, path := range paths {
		asking.Go(func() {
			resp, err := larder.Client().Get(larder.URL + path)
			if err != nil {
				t.Error(err)
				return
			}
			defer resp.Body.Close()
			n, err := new(counter).ReadFrom(resp.Body)
			if err != nil || resp.StatusCode != http.StatusOK || n != resp.ContentLength {
				t.Errorf("%s: %s, %d of %d bytes, %v", path, resp.Status, n, resp.ContentLength, err)
			}
		})
	}
	go func() {
		asking.Wait()
		close(ended)
	}()
	var most uint64
	for tick := time.NewTicker(5 * time.Millisecond); ; {
		select {
		case <-tick.C:
			runtime.ReadMemStats(&now)
			most = max(most, now.HeapAlloc)
		case <-ended:
			tick.Stop()
			return most - min(most, before.HeapAlloc)
		}
	}
}

// counter counts what it is given, in little memory.
type counter struct{}

func (*counter) ReadFrom(r io.Reader) (n int64, err error) {
	buf := make([]byte, 8<<10)
	for {
		m, err := r.Read(buf)
		n += int64(m)
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = nil
			}
			return n, err
		}
	}
}

func TestManyLargeTagListsTakeLittleMemory(t *testing.T) {
	var list strings.Builder
	list.WriteString(`{"name":"app","tags":["v0"`)
	for i := 1; list.Len() < 3_500_000; i++ {
		fmt.Fprintf(&list, `,"v%d"`, i)
	}
	list.WriteString("]}")
	body := []byte(list.String())
	larder := documents(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", fmt.Sprint(len(body)))
		_, _ = w.Write(body) // the client may have left
	})
	paths := make([]string, 60)
	for i := range paths {
		paths[i] = fmt.Sprintf("/v2/app%d/tags/list", i)
	}
	most := peak(t, larder, paths)
	if most > 100<<20 {
		t.Errorf("60 lists of 3.5 MB take %d MB", most>>20)
	}
}

// largeManifest is a manifest of the largest size.
func largeManifest() []byte {
	raw := []byte(`{"schemaVersion":2,"config":{"mediaType":"a","size":0,"digest":"` + digestOfNothing + `"},"layers":[],"annotations":{"a":"`)
	const end = `"}}`
	return append(append(raw, bytes.Repeat([]byte("a"), cache.MaxManifest-len(raw)-len(end))...), end...)
}

// largeUpstream has a manifest and lists of the largest size of a manifest.
func largeUpstream(host string) *scripted {
	raw := largeManifest()
	list := []byte(`{"name":"app","tags":["` + strings.Repeat("a", cache.MaxManifest-24) + `"]}`)
	index := []byte(`{"mediaType":"` + ocispec.MediaTypeImageIndex + `","manifests":[{"digest":"` + digestOfNothing + `","annotations":{"a":"` +
		strings.Repeat("a", cache.MaxManifest-300) + `"}}]}`)
	return &scripted{
		host:      host,
		manifests: map[string][]byte{digest.FromBytes(raw).String(): raw},
		list: func(ctx context.Context, resource string, _ url.Values) (http.Header, []byte, error) {
			if resource != "tags/list" {
				return http.Header{}, index, admit(ctx, len(index))
			}
			return http.Header{}, list, admit(ctx, len(list))
		},
	}
}

// wantAnswered fails the test unless a Larder answers a request at once, in a bubble.
func wantAnswered(t *testing.T, larder http.Handler, path string) {
	t.Helper()
	w := httptest.NewRecorder()
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		larder.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil))
	}()
	begin := time.Now()
	<-answered
	if took := time.Since(begin); w.Code != http.StatusOK || took > time.Second {
		t.Errorf("%s: %d after %v", path, w.Code, took)
	}
}

func TestSlowUpstreamHoldsUpNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow, quick := largeUpstream("slow.test"), largeUpstream("quick.test")
		slow.list = func(ctx context.Context, _ string, _ url.Values) (http.Header, []byte, error) {
			if err := admit(ctx, cache.MaxManifest); err != nil {
				return nil, nil, err
			}
			<-ctx.Done()
			return nil, nil, ctx.Err()
		}
		larder := serveScripted(t, cache.Options{}, slow, quick)
		var asking sync.WaitGroup
		for i := range 20 {
			asking.Go(func() { ask(t, larder, fmt.Sprintf("/v2/slow.test/app%d/tags/list", i)) })
		}
		synctest.Wait()
		wantAnswered(t, larder, "/v2/quick.test/app/tags/list")
		for d := range quick.manifests {
			wantAnswered(t, larder, "/v2/quick.test/app/manifests/"+d)
		}
		asking.Wait()
	})
}

// stalled is a client that takes nothing of a body until it is told to.
type stalled struct {
	http.ResponseWriter
	until chan struct{}
}

func (s *stalled) Write(p []byte) (int, error) {
	<-s.until
	return len(p), nil
}

func TestSlowClientsHoldUpNoManifestAndNoOtherUpstream(t *testing.T) {
	for _, test := range []struct {
		name, list   string
		repositories int // that the slow clients ask for
	}{
		{"tags", "tags/list", 10},
		{"referrers", "referrers/" + digestOfNothing, 10},
		{"the same referrers", "referrers/" + digestOfNothing, 1},
	} {
		list := test.list
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				one, other := largeUpstream("one.test"), largeUpstream("other.test")
				larder := serveScripted(t, cache.Options{}, one, other)
				until := make(chan struct{})
				var asking sync.WaitGroup
				for i := range 10 {
					asking.Go(func() {
						r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, fmt.Sprintf("/v2/one.test/app%d/%s", i%test.repositories, list), nil)
						larder.ServeHTTP(&stalled{httptest.NewRecorder(), until}, r)
					})
				}
				synctest.Wait()
				wantAnswered(t, larder, "/v2/other.test/app/"+list)
				for d := range one.manifests {
					wantAnswered(t, larder, "/v2/one.test/app/manifests/"+d)
				}
				late := httptest.NewRecorder()
				larder.ServeHTTP(late, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/v2/one.test/late/"+list, nil))
				if late.Code != http.StatusServiceUnavailable {
					t.Errorf("a list beyond the bound: %d, %d bytes", late.Code, late.Body.Len())
				}
				close(until)
				asking.Wait()
				wantAnswered(t, larder, "/v2/one.test/app/"+list)
			})
		})
	}
}
