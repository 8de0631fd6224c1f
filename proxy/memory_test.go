package proxy_test

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"testing"
	"time"

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
		Upstreams: func(host, _ string) (proxy.Source, bool) {
			r, err := client.Registry(host)
			if err != nil {
				t.Error(err)
				return proxy.Source{}, false
			}
			return proxy.Source{Upstream: r, OpenBlob: openBlob(r), WithAdmission: upstream.WithAdmission, Timeout: time.Minute}, true
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
	paths := make([]string, 30)
	for i := range paths {
		paths[i] = fmt.Sprintf("/v2/app%d/tags/list", i)
	}
	most := peak(t, larder, paths)
	if most > 200<<20 {
		t.Errorf("30 lists of 3.5 MB take %d MB", most>>20)
	}
}
