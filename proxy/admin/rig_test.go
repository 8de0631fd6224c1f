package admin_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/larder-registry/larder/cache"
	"github.com/larder-registry/larder/cache/cachetest"
	"github.com/larder-registry/larder/proxy"
	"github.com/larder-registry/larder/proxy/admin"
)

// repo is the repository of all tests.
var repo = cache.Repository{Upstream: "registry.test", Name: "team/app"}

// rig is an Admin of a real store. Tests set what its proxy and upstreams say.
type rig struct {
	t       testing.TB
	dir     string
	cache   cache.Options
	opts    admin.Options
	store   *cache.Store
	admin   *admin.Admin
	clients clients
}

// newRig opens a store in a new folder. The rest of the options is set here.
func newRig(t testing.TB, cacheOpts cache.Options, opts admin.Options) *rig {
	t.Helper()
	r := &rig{t: t, dir: filepath.Join(t.TempDir(), "cache"), cache: cacheOpts, opts: opts}
	r.cache.Log, r.cache.ScrubEvery = slog.New(slog.DiscardHandler), -1
	r.start()
	t.Cleanup(r.stop)
	return r
}

func (r *rig) start() {
	r.t.Helper()
	var err error
	if r.store, err = cache.Open(r.dir, r.cache); err != nil {
		r.t.Fatal(err)
	}
	opts := r.opts
	opts.Store, opts.Clients, opts.Log = r.store, &r.clients, slog.New(slog.DiscardHandler)
	r.admin = admin.New(opts)
}

func (r *rig) stop() {
	if err := errors.Join(r.store.Close(), cachetest.Check(r.dir)); err != nil {
		r.t.Error(err)
	}
}

// restart closes the store, which waits for running commits, and opens it again.
func (r *rig) restart() {
	r.t.Helper()
	r.stop()
	r.start()
}

// clients is what a test says that the proxy does.
type clients struct {
	mu      sync.Mutex // guards what follows
	traffic proxy.Traffic
	fills   []proxy.Fill
	refused []proxy.Refusal
	recent  proxy.Recent
}

func (c *clients) set(traffic proxy.Traffic, fills ...proxy.Fill) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.traffic, c.fills = traffic, fills
}

func (c *clients) Traffic() proxy.Traffic {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.traffic
}

func (c *clients) Fills() []proxy.Fill {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]proxy.Fill{}, c.fills...)
}

func (c *clients) Refusals() []proxy.Refusal {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]proxy.Refusal{}, c.refused...)
}

// image is an image of two blobs.
type image struct {
	root  digest.Digest
	layer digest.Digest
	bytes int64 // of the layer and the configuration
	blobs map[digest.Digest][]byte
	raw   []byte
}

func newImage(t testing.TB, layerSize int) image {
	t.Helper()
	config, layer := []byte(`{"os":"linux","architecture":"amd64"}`), bytes.Repeat([]byte("layer"), layerSize/5)
	img := image{layer: digest.FromBytes(layer), bytes: int64(len(config) + len(layer)), blobs: map[digest.Digest][]byte{}}
	describe := func(mediaType string, content []byte) ocispec.Descriptor {
		desc := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(content), Size: int64(len(content))}
		img.blobs[desc.Digest] = content
		return desc
	}
	var err error
	img.raw, err = json.Marshal(ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageManifest,
		Config:    describe(ocispec.MediaTypeImageConfig, config),
		Layers:    []ocispec.Descriptor{describe(ocispec.MediaTypeImageLayer, layer)},
	})
	if err != nil {
		t.Fatal(err)
	}
	img.root = digest.FromBytes(img.raw)
	return img
}

// tag caches the manifest of an image, and none of its blobs.
func (r *rig) tag(tag string, img image) {
	r.t.Helper()
	_, _, err := r.store.Tag(r.t.Context(), repo, tag, func(context.Context, string, bool) (cache.Manifest, error) {
		return cache.Manifest{Digest: img.root, MediaType: ocispec.MediaTypeImageManifest, Size: int64(len(img.raw)), Raw: img.raw}, nil
	})
	if err != nil {
		r.t.Fatal(err)
	}
}

// pull caches an image, and restarts to wait until all of it is committed.
func (r *rig) pull(tag string, img image) {
	r.t.Helper()
	r.tag(tag, img)
	for dgst, content := range img.blobs {
		blob, err := r.store.Open(r.t.Context(), dgst, cache.Source{Size: int64(len(content)), Fetch: func(_ context.Context, rg cache.Range) (cache.Content, error) {
			return cache.Content{Body: io.NopCloser(bytes.NewReader(content[rg.Off:])), Size: int64(len(content))}, nil
		}})
		if err != nil {
			r.t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, blob); err != nil {
			r.t.Fatal(err)
		}
		if err := blob.Close(); err != nil {
			r.t.Fatal(err)
		}
	}
	r.restart()
}

// damage changes a blob's file.
func (r *rig) damage(dgst digest.Digest, content []byte) {
	r.t.Helper()
	damaged := bytes.Clone(content)
	damaged[len(damaged)-1] ^= 1
	path := filepath.Join(r.dir, "blobs", dgst.Algorithm().String(), dgst.Encoded()[:2], dgst.Encoded())
	if err := os.WriteFile(path, damaged, 0o600); err != nil {
		r.t.Fatal(err)
	}
}

// api sends a request to /api/v1 and decodes the response into v. The image is not
// sent if it is empty; other parameters may follow it.
func (r *rig) api(method, what, image string, v any) int {
	r.t.Helper()
	w := httptest.NewRecorder()
	target := "/api/v1/" + what
	if image != "" {
		image, more, _ := strings.Cut(image, "&")
		target += "?image=" + url.QueryEscape(image) + "&" + more
	}
	r.admin.API().ServeHTTP(w, httptest.NewRequest(method, target, http.NoBody))
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

// ask sends a request to the admin listener.
func (r *rig) ask(method, path string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	r.admin.Handler().ServeHTTP(w, httptest.NewRequest(method, path, http.NoBody))
	return w
}

func (c *clients) Recent() proxy.Recent {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.recent
}
