package load_test

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/larder-registry/larder/cmd/bench/internal/load"
)

// serve returns a target for a handler.
func serve(t *testing.T, h http.HandlerFunc) load.Target {
	t.Helper()
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	return load.Target{Name: "the server", Addr: strings.TrimPrefix(server.URL, "http://"), Authorization: "Basic secret"}
}

func newClient(t *testing.T) *load.Client {
	t.Helper()
	c := load.NewClient(t.Context())
	t.Cleanup(c.Close)
	return c
}

// body is larger than what a connection buffers.
var body = bytes.Repeat([]byte("0123456789"), 500_000)

func TestConnectionIsUsedAgainAfterDiscard(t *testing.T) {
	var mu sync.Mutex // guards from
	from := make(map[string]bool)
	target := serve(t, func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		from[r.RemoteAddr] = true
		mu.Unlock()
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		_, _ = w.Write(body)
	})
	c := newClient(t)
	for range 3 {
		resp, err := c.Do(target, load.Request{Path: "/blob"})
		if err != nil {
			t.Fatal(err)
		}
		if n, err := resp.Discard(); err != nil || n != int64(len(body)) {
			t.Fatalf("%d bytes, %v; want %d", n, err, len(body))
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if len(from) != 1 {
		t.Errorf("%d connections, want 1", len(from))
	}
}

func TestRedirectsGetNoAuthorization(t *testing.T) {
	storage := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if got := r.Header.Get("Authorization"); got != "" {
			http.Error(w, "credentials: "+got, http.StatusBadRequest)
			return
		}
		_, _ = w.Write(body)
	})
	var asked atomic.Int64
	registry := serve(t, func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		if r.Header.Get("Authorization") != "Basic secret" {
			http.Error(w, "no credentials", http.StatusUnauthorized)
			return
		}
		http.Redirect(w, r, "http://"+storage.Addr+"/signed", http.StatusTemporaryRedirect)
	})
	c := newClient(t)
	for range 2 {
		resp, err := c.DoRedirected(registry, load.Request{Path: "/blob"})
		if err != nil {
			t.Fatal(err)
		}
		if n, err := resp.Discard(); err != nil || n != int64(len(body)) {
			t.Fatalf("%d bytes, %v; want %d", n, err, len(body))
		}
	}
	if n := asked.Load(); n != 1 {
		t.Errorf("the registry was asked %d times, want once: the second request goes where the first was redirected to", n)
	}
}

func TestGetChecksSizeAndDigest(t *testing.T) {
	target := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		_, _ = w.Write(body)
	})
	right := ocispec.Descriptor{Digest: digest.FromBytes(body), Size: int64(len(body))}
	for name, test := range map[string]struct {
		want   ocispec.Descriptor
		verify bool
		ok     bool
	}{
		"right":                        {right, true, true},
		"another size":                 {ocispec.Descriptor{Digest: right.Digest, Size: 1}, false, false},
		"another digest":               {ocispec.Descriptor{Digest: digest.FromString("x"), Size: right.Size}, true, false},
		"another digest, not verified": {ocispec.Descriptor{Digest: digest.FromString("x"), Size: right.Size}, false, true},
	} {
		t.Run(name, func(t *testing.T) {
			n, err := newClient(t).Get(target, "/blob", test.want, test.verify)
			if (err == nil) != test.ok || n != right.Size {
				t.Errorf("%d bytes, %v", n, err)
			}
		})
	}
}

func TestErrorHasStatusAndMessage(t *testing.T) {
	target := serve(t, func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no such blob", http.StatusNotFound) })
	_, err := newClient(t).Do(target, load.Request{Path: "/blob"})
	if err == nil || !strings.Contains(err.Error(), "the server: /blob: 404 Not Found no such blob") {
		t.Errorf("%v", err)
	}
}

func TestRangeIsAskedFor(t *testing.T) {
	target := serve(t, func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(body))
	})
	resp, err := newClient(t).Do(target, load.Request{Path: "/blob", From: 13, Len: 5})
	if err != nil {
		t.Fatal(err)
	}
	var got strings.Builder
	if _, err := resp.Copy(&got); err != nil || got.String() != "34567" {
		t.Errorf("%q, %v; want bytes 13 to 17", got.String(), err)
	}
}
