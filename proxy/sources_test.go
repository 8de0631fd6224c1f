package proxy_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/cache"
	"github.com/larder-registry/larder/proxy"
	"github.com/larder-registry/larder/upstream"
	"github.com/larder-registry/larder/upstream/ecrtest"
)

// site is a registry that has, or claims to have, the same image as others. It answers for
// the image's layer as serve does, and truly for all else.
type site struct {
	layer    []byte
	manifest string
	serve    func(w http.ResponseWriter, r *http.Request, layer []byte)
	asked    chan struct{} // closed at the first request for the layer's content
	begun    atomic.Bool
	server   *httptest.Server
}

func newSite(t *testing.T, layer []byte, serve func(w http.ResponseWriter, r *http.Request, layer []byte)) *site {
	s := &site{layer: layer, serve: serve, asked: make(chan struct{})}
	s.manifest = fmt.Sprintf(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json",`+
		`"config":{"mediaType":"application/vnd.oci.empty.v1+json","digest":"%s","size":2},`+
		`"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"%s","size":%d}]}`,
		digest.FromString("{}"), digest.FromBytes(layer), len(layer))
	s.server = httptest.NewServer(s)
	t.Cleanup(s.server.Close)
	return s
}

func (s *site) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case strings.Contains(r.URL.Path, "/manifests/"):
		w.Header().Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
		w.Header().Set("Docker-Content-Digest", digest.FromString(s.manifest).String())
		_, _ = io.WriteString(w, s.manifest)
	case strings.Contains(r.URL.Path, "/blobs/"):
		if s.begun.CompareAndSwap(false, true) {
			close(s.asked)
		}
		s.serve(w, r, s.layer)
	}
}

// healthy answers as a registry should.
func healthy(w http.ResponseWriter, r *http.Request, layer []byte) {
	http.ServeContent(w, r, "", time.Time{}, strings.NewReader(string(layer)))
}

// trickling sends one byte a second.
func trickling(w http.ResponseWriter, r *http.Request, layer []byte) {
	w.Header().Set("Content-Length", strconv.Itoa(len(layer)))
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for i := range layer {
		if _, err := w.Write(layer[i : i+1]); err != nil {
			return
		}
		_ = http.NewResponseController(w).Flush()
		select {
		case <-tick.C:
		case <-r.Context().Done():
			return
		}
	}
}

// silent never answers.
func silent(_ http.ResponseWriter, r *http.Request, _ []byte) { <-r.Context().Done() }

// lying sends other bytes: all but the last at once, and that when go is closed.
func lying(last <-chan struct{}) func(http.ResponseWriter, *http.Request, []byte) {
	return func(w http.ResponseWriter, r *http.Request, layer []byte) {
		w.Header().Set("Content-Length", strconv.Itoa(len(layer)))
		wrong := make([]byte, len(layer))
		_, _ = w.Write(wrong[1:])
		_ = http.NewResponseController(w).Flush()
		select {
		case <-last:
		case <-r.Context().Done():
		}
		_, _ = w.Write(wrong[:1])
	}
}

// loginPage answers with a page instead of the layer.
func loginPage(w http.ResponseWriter, _ *http.Request, _ []byte) {
	w.Header().Set("Content-Type", "text/html")
	_, _ = io.WriteString(w, "<html>Log in</html>")
}

// chunkedPage is a loginPage that does not tell its size.
func chunkedPage(w http.ResponseWriter, r *http.Request, layer []byte) {
	_ = http.NewResponseController(w).Flush()
	loginPage(w, r, layer)
}

// part answers 200 with a part of the layer.
func part(w http.ResponseWriter, _ *http.Request, layer []byte) {
	w.Header().Set("Content-Range", fmt.Sprintf("bytes 0-9/%d", len(layer)))
	w.Header().Set("Content-Length", "10")
	_, _ = w.Write(layer[:10])
}

// neighbours is a Larder in front of several sites.
type neighbours struct {
	t      *testing.T
	server *httptest.Server
}

func newNeighbours(t *testing.T, sites map[string]*site) *neighbours {
	log := slog.New(slog.DiscardHandler)
	store, err := cache.Open(t.TempDir(), cache.Options{Log: log})
	if err != nil {
		t.Fatal(err)
	}
	client := upstream.NewClient(upstream.Options{Log: log, Lookup: func(host string) (upstream.Config, bool) {
		s, ok := sites[host]
		if !ok {
			return upstream.Config{}, false
		}
		return upstream.Config{Host: host, Endpoint: s.server.URL, Timeout: time.Minute}, true
	}})
	handler := proxy.New(proxy.Options{Store: store, Log: log, Upstreams: func(host, _ string) (proxy.Source, error) {
		if sites[host] == nil {
			return proxy.Source{}, proxy.ErrNotConfigured
		}
		registry, err := client.Registry(host)
		if err != nil {
			t.Error(err)
			return proxy.Source{}, err
		}
		return proxy.Source{Upstream: registry, OpenBlob: openBlob(registry), Timeout: 20 * time.Second}, nil
	}})
	n := &neighbours{t: t, server: httptest.NewServer(handler)}
	t.Cleanup(func() {
		for _, s := range sites {
			s.server.CloseClientConnections()
		}
		n.server.Close()
		if err := store.Close(); err != nil {
			t.Error(err)
		}
		if err := client.Close(); err != nil {
			t.Error(err)
		}
	})
	return n
}

// get sends a request for a path of a site.
func (n *neighbours) get(ctx context.Context, host, path string) answer {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, n.server.URL+path+"?ns="+url.QueryEscape(host), nil)
	if err != nil {
		return answer{err: err}
	}
	resp, err := n.server.Client().Do(req)
	if err != nil {
		return answer{err: err}
	}
	return read(resp)
}

// pull gets the manifest and the layer from a site.
func (n *neighbours) pull(ctx context.Context, host string, s *site) answer {
	if m := n.get(ctx, host, manifestPath("app", digest.FromString(s.manifest).String())); m.err != nil || m.StatusCode != http.StatusOK {
		return m
	}
	return n.get(ctx, host, blobPath("app", digest.FromBytes(s.layer)))
}

func TestUpstreamHurtsNoClientOfAnother(t *testing.T) {
	layer := bytesOf(t, ecrtest.Random(1, 4<<20))
	last := make(chan struct{})
	for name, serve := range map[string]func(http.ResponseWriter, *http.Request, []byte){
		"slow.example":    trickling,
		"silent.example":  silent,
		"lying.example":   lying(last),
		"page.example":    loginPage,
		"healthy.example": healthy,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bad, good := newSite(t, layer, serve), newSite(t, layer, healthy)
			n := newNeighbours(t, map[string]*site{name: bad, "good.example": good})
			ctx, leave := context.WithCancel(t.Context())
			first := make(chan answer, 1)
			go func() { first <- n.pull(ctx, name, bad) }()
			<-bad.asked
			begun := time.Now()
			a := n.pull(t.Context(), "good.example", good)
			wantStatus(t, a, http.StatusOK)
			wantBody(t, a, layer)
			if took := time.Since(begun); took > 15*time.Second {
				t.Errorf("it took %v", took)
			}
			leave()
			<-first
		})
	}
}

// containerd asks the next host at once after a 404, and the same host again and again after
// a body that was cut.
func TestAnswerThatIsNotTheLayerIsA404(t *testing.T) {
	layer := bytesOf(t, ecrtest.Random(1, 1<<20))
	for name, serve := range map[string]func(http.ResponseWriter, *http.Request, []byte){
		"login page":                loginPage,
		"login page without a size": chunkedPage,
		"200 with a Content-Range":  part,
		"another length":            func(w http.ResponseWriter, r *http.Request, layer []byte) { healthy(w, r, layer[1:]) },
		"another length, and longer": func(w http.ResponseWriter, r *http.Request, layer []byte) {
			healthy(w, r, append(layer[:len(layer):len(layer)], 1))
		},
		"nothing": func(http.ResponseWriter, *http.Request, []byte) {},
	} {
		t.Run(name, func(t *testing.T) {
			bad := newSite(t, layer, serve)
			n := newNeighbours(t, map[string]*site{"bad.example": bad})
			wantError(t, n.pull(t.Context(), "bad.example", bad), http.StatusNotFound, "BLOB_UNKNOWN")
		})
	}
}
