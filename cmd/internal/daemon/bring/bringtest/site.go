// Package bringtest has a registry in memory and a proxy in front of it, for tests whose clock
// is simulated.
package bringtest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/larder-registry/larder/cache"
	"github.com/larder-registry/larder/proxy"
	"github.com/larder-registry/larder/upstream/name"
)

// Host and Repository are those of all images.
const (
	Host       = "registry.test"
	Repository = "team/app"
)

// ErrDown is the error of a registry that is down, and of a transfer beyond its budget.
var ErrDown = errors.New("the link is down")

// Site is a cache with a proxy in front of a registry. Its methods may be called from several
// goroutines at once.
type Site struct {
	t     testing.TB
	Dir   string
	Store *cache.Store
	Proxy *proxy.Proxy

	mu       sync.Mutex // guards what follows
	content  map[string][]byte
	down     bool
	budget   int64 // bytes that blobs may still send; negative for any number
	sent     int64 // bytes of blobs
	asked    int   // questions, downloads of blobs included
	attended int   // downloads of blobs for which somebody waits
}

// New returns a site with an empty cache. Its store is closed at the end of the test.
func New(t testing.TB, opts cache.Options) *Site {
	t.Helper()
	s := &Site{t: t, Dir: t.TempDir(), content: make(map[string][]byte), budget: -1}
	s.open(opts)
	t.Cleanup(func() {
		if err := s.Store.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func (s *Site) open(opts cache.Options) {
	s.t.Helper()
	opts.ScrubEvery, opts.IndexWorkers = -1, -1 // most tests simulate hours
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	var err error
	if s.Store, err = cache.Open(s.Dir, opts); err != nil {
		s.t.Fatal(err)
	}
	s.Proxy = proxy.New(proxy.Options{Store: s.Store, Default: Host, Log: slog.New(slog.DiscardHandler), Upstreams: func(string, string) (proxy.Source, error) {
		return proxy.Source{Upstream: s, OpenBlob: s.openBlob, Timeout: 20 * time.Second}, nil
	}})
}

// Restart closes the store and opens it again.
func (s *Site) Restart(opts cache.Options) {
	s.t.Helper()
	if err := s.Store.Close(); err != nil {
		s.t.Fatal(err)
	}
	s.open(opts)
}

// Name is the name of an image of the registry.
func Name(reference string) name.Image {
	image, err := name.ParseImage(cache.Repository{Upstream: Host, Name: Repository}.Image(reference))
	if err != nil {
		panic(err)
	}
	return image
}

// Repo is the repository of all images.
func Repo() cache.Repository { return cache.Repository{Upstream: Host, Name: Repository} }

// SetDown has the registry answer no more, or again.
func (s *Site) SetDown(down bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down = down
}

// SetBudget lets blobs send so many bytes in total, before the registry is down for good. A
// negative number is no bound.
func (s *Site) SetBudget(bytes int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.budget, s.down = bytes, false
}

// Counts returns how many bytes of blobs were sent, how many questions were asked, and how many
// blobs were downloaded for somebody who waits.
func (s *Site) Counts() (sent int64, asked, attended int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sent, s.asked, s.attended
}

// Remove removes a tag or a digest from the registry.
func (s *Site) Remove(reference string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.content, reference)
}

// Image is one that a test adds: for a single platform, or an index of several.
type Image struct {
	Root      ocispec.Descriptor
	Manifests []ocispec.Descriptor // of the platforms
	Layers    []ocispec.Descriptor // one of each platform
}

// AddImage adds an image with a layer of so many bytes for each platform, and moves the tag to
// it. Images with different texts share nothing.
func (s *Site) AddImage(tag, text string, size int, ofPlatforms ...string) Image {
	s.t.Helper()
	var added Image
	for _, of := range ofPlatforms {
		p := platforms.MustParse(of)
		layer := s.Add(ocispec.MediaTypeImageLayer, []byte(strings.Repeat(text+of, size/len(text+of)+1)[:size]))
		m := s.AddJSON(ocispec.MediaTypeImageManifest, ocispec.Manifest{
			Versioned: specs.Versioned{SchemaVersion: 2},
			MediaType: ocispec.MediaTypeImageManifest,
			Config:    s.AddJSON(ocispec.MediaTypeImageConfig, ocispec.Image{Platform: p, Author: text}),
			Layers:    []ocispec.Descriptor{layer},
		})
		m.Platform = &p
		added.Manifests, added.Layers = append(added.Manifests, m), append(added.Layers, layer)
	}
	added.Root = added.Manifests[0]
	if len(ofPlatforms) > 1 {
		added.Root = s.AddIndex(added.Manifests...)
	}
	s.Tag(tag, added.Root.Digest)
	return added
}

// AddIndex adds an index of manifests.
func (s *Site) AddIndex(manifests ...ocispec.Descriptor) ocispec.Descriptor {
	s.t.Helper()
	return s.AddJSON(ocispec.MediaTypeImageIndex, ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageIndex,
		Manifests: manifests,
	})
}

// AddJSON adds a document.
func (s *Site) AddJSON(mediaType string, v any) ocispec.Descriptor {
	s.t.Helper()
	raw, err := json.Marshal(v)
	if err != nil {
		s.t.Fatal(err)
	}
	return s.Add(mediaType, raw)
}

// Add adds content.
func (s *Site) Add(mediaType string, content []byte) ocispec.Descriptor {
	d := digest.FromBytes(content)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.content[d.String()] = content
	return ocispec.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(content))}
}

// Tag moves a tag.
func (s *Site) Tag(tag string, d digest.Digest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.content[tag] = s.content[d.String()]
}

// Manifest implements [proxy.Upstream].
func (s *Site) Manifest(_ context.Context, _, reference string, head bool) (ocispec.Descriptor, []byte, error) {
	raw, err := s.ask(reference)
	if err != nil {
		return ocispec.Descriptor{}, nil, err
	}
	desc := ocispec.Descriptor{Digest: digest.FromBytes(raw), Size: int64(len(raw))}
	if head {
		raw = nil
	}
	return desc, raw, nil
}

// BlobSize implements [proxy.Upstream].
func (s *Site) BlobSize(_ context.Context, _ string, d digest.Digest) (int64, error) {
	raw, err := s.ask(d.String())
	return int64(len(raw)), err
}

// List implements [proxy.Upstream]. All lists of referrers are empty.
func (s *Site) List(context.Context, string, string, url.Values) (http.Header, []byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked++
	if s.down {
		return nil, nil, ErrDown
	}
	list := []byte(`{"schemaVersion": 2, "mediaType": "` + ocispec.MediaTypeImageIndex + `", "manifests": []}`)
	return http.Header{"Content-Type": {ocispec.MediaTypeImageIndex}}, list, nil
}

func (s *Site) ask(reference string) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked++
	if s.down {
		return nil, ErrDown
	}
	raw, ok := s.content[reference]
	if !ok {
		return nil, fmt.Errorf("%s: %w", reference, fs.ErrNotExist)
	}
	return raw, nil
}

func (s *Site) openBlob(ctx context.Context, _ string, d digest.Digest, part cache.Range) (cache.Content, error) {
	raw, err := s.ask(d.String())
	if err != nil {
		return cache.Content{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if cache.IsAttended(ctx) {
		s.attended++
	}
	end := int64(len(raw))
	if part.Len > 0 {
		end = min(end, part.Off+part.Len)
	}
	return cache.Content{Body: io.NopCloser(&body{s, bytes.NewReader(raw[part.Off:end])}), Size: int64(len(raw))}, nil
}

// body is the content of a blob on its way.
type body struct {
	site *Site
	rest *bytes.Reader
}

func (b *body) Read(p []byte) (int, error) {
	s := b.site
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.budget == 0 {
		s.down = true
	}
	switch {
	case s.down:
		return 0, ErrDown
	case s.budget > 0:
		p = p[:min(int64(len(p)), s.budget)]
	}
	n, err := b.rest.Read(p)
	s.sent += int64(n)
	if s.budget > 0 {
		s.budget -= int64(n)
	}
	return n, err
}

// Get is a GET of a client, such as "/manifests/v1". It returns the status, the headers and
// the content.
func (s *Site) Get(path string) *httptest.ResponseRecorder {
	s.t.Helper()
	r := httptest.NewRequestWithContext(s.t.Context(), http.MethodGet, "/v2/"+Repository+path, http.NoBody)
	w := httptest.NewRecorder()
	defer func() { _ = recover() }() // a connection that was cut
	s.Proxy.ServeHTTP(w, r)
	return w
}

// Pull pulls an image as a client does, and returns the digest of its root. The error is the
// first answer that is not 200, or not whole.
func (s *Site) Pull(tag string, platform int) (digest.Digest, error) {
	s.t.Helper()
	get := func(path string) ([]byte, error) {
		w := s.Get(path)
		if w == nil {
			return nil, fmt.Errorf("GET %s: the connection was cut", path)
		}
		if w.Code != http.StatusOK {
			return nil, fmt.Errorf("GET %s: %d %s", path, w.Code, w.Body)
		}
		return w.Body.Bytes(), nil
	}
	raw, err := get("/manifests/" + tag)
	root := digest.FromBytes(raw)
	for err == nil {
		var doc struct {
			Config            *ocispec.Descriptor
			Layers, Manifests []ocispec.Descriptor
		}
		if err = json.Unmarshal(raw, &doc); err != nil {
			return root, err
		}
		if doc.Manifests != nil {
			raw, err = get("/manifests/" + doc.Manifests[platform].Digest.String())
			continue
		}
		for _, blob := range append(doc.Layers, *doc.Config) {
			if _, err := get("/blobs/" + blob.Digest.String()); err != nil {
				return root, err
			}
		}
		return root, nil
	}
	return root, err
}
