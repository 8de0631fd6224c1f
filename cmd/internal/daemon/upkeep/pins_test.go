package upkeep_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/larder-registry/larder/cache"
	"github.com/larder-registry/larder/cmd/internal/daemon/upkeep"
)

var pinnedRepo = cache.Repository{Upstream: "registry.test", Name: "team/app"}

// pinned is a store with images of an upstream in memory, and the upkeep of its pins.
type pinned struct {
	t       *testing.T
	dir     string
	store   *cache.Store
	content map[digest.Digest][]byte // of the upstream
	log     bytes.Buffer
	*upkeep.Pins

	down  atomic.Bool  // the upstream fails
	tries atomic.Int64 // fetches of the upkeep
}

func newPinned(t *testing.T) *pinned {
	p := &pinned{t: t, dir: t.TempDir(), content: make(map[digest.Digest][]byte)}
	var err error
	p.store, err = cache.Open(p.dir, cache.Options{Log: slog.New(slog.DiscardHandler), ScrubEvery: -1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.store.Close(); err != nil {
			t.Error(err)
		}
	})
	p.Pins = upkeep.NewPins(p.store, p, slog.New(slog.NewTextHandler(&p.log, nil)))
	return p
}

var errDown = errors.New("the upstream is down")

func (p *pinned) FetchManifest(ctx context.Context, repo cache.Repository, dgst digest.Digest) error {
	p.tries.Add(1)
	_, _, err := p.store.Manifest(ctx, repo, dgst, p.ask)
	return err
}

func (p *pinned) ask(_ context.Context, reference string, _ bool) (cache.Manifest, error) {
	if p.down.Load() {
		return cache.Manifest{}, errDown
	}
	raw := p.content[digest.Digest(reference)]
	var of struct{ MediaType string }
	err := json.Unmarshal(raw, &of)
	return cache.Manifest{Digest: digest.Digest(reference), MediaType: of.MediaType, Size: int64(len(raw)), Raw: raw}, err
}

func (p *pinned) FetchBlob(ctx context.Context, _ cache.Repository, dgst digest.Digest, size int64) error {
	p.tries.Add(1)
	if p.down.Load() {
		return errDown
	}
	content := p.content[dgst]
	blob, err := p.store.Open(ctx, dgst, cache.Source{Size: size, Fetch: func(_ context.Context, r cache.Range) (cache.Content, error) {
		return cache.Content{Body: io.NopCloser(bytes.NewReader(content[r.Off:])), Size: int64(len(content))}, nil
	}})
	if err != nil {
		return err
	}
	defer blob.Close()
	_, err = io.Copy(io.Discard, blob)
	return err
}

// add gives the upstream some content.
func (p *pinned) add(mediaType string, content []byte) ocispec.Descriptor {
	desc := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(content), Size: int64(len(content))}
	p.content[desc.Digest] = content
	return desc
}

func (p *pinned) addJSON(mediaType string, v any) ocispec.Descriptor {
	p.t.Helper()
	content, err := json.Marshal(v)
	if err != nil {
		p.t.Fatal(err)
	}
	return p.add(mediaType, content)
}

// addImage gives the upstream an image for a platform. Images with different texts
// share nothing.
func (p *pinned) addImage(architecture, text string) (manifest, layer ocispec.Descriptor) {
	p.t.Helper()
	platform := ocispec.Platform{OS: "linux", Architecture: architecture}
	layer = p.add(ocispec.MediaTypeImageLayer, []byte(strings.Repeat(text, 50_000)))
	manifest = p.addJSON(ocispec.MediaTypeImageManifest, ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageManifest,
		Config:    p.addJSON(ocispec.MediaTypeImageConfig, ocispec.Image{Platform: platform, Author: text}),
		Layers:    []ocispec.Descriptor{layer},
	})
	manifest.Platform = &platform
	return manifest, layer
}

// tag caches the manifest that a tag stands for.
func (p *pinned) tag(tag string, root ocispec.Descriptor) {
	p.t.Helper()
	_, _, err := p.store.Tag(p.t.Context(), pinnedRepo, tag, func(ctx context.Context, _ string, head bool) (cache.Manifest, error) {
		return p.ask(ctx, root.Digest.String(), head)
	})
	if err != nil {
		p.t.Fatal(err)
	}
}

// pull caches an image of one platform.
func (p *pinned) pull(tag string, root ocispec.Descriptor) {
	p.t.Helper()
	p.tag(tag, root)
	var manifest ocispec.Manifest
	if err := json.Unmarshal(p.content[root.Digest], &manifest); err != nil {
		p.t.Fatal(err)
	}
	for _, desc := range append(manifest.Layers, manifest.Config) {
		if err := p.FetchBlob(p.t.Context(), pinnedRepo, desc.Digest, desc.Size); err != nil {
			p.t.Fatal(err)
		}
	}
	synctest.Wait() // for the files to get their names
}

// run runs the upkeep until the test ends. It is called in a bubble.
func (p *pinned) run() (end func()) {
	ctx, cancel := context.WithCancel(p.t.Context())
	var running sync.WaitGroup
	running.Go(func() { p.Run(ctx) })
	return func() {
		cancel()
		running.Wait()
	}
}

// damage changes the last bit of a blob's file.
func (p *pinned) damage(dgst digest.Digest) {
	p.t.Helper()
	content := bytes.Clone(p.content[dgst])
	content[len(content)-1] ^= 1
	path := filepath.Join(p.dir, "blobs", dgst.Algorithm().String(), dgst.Encoded()[:2], dgst.Encoded())
	if err := os.WriteFile(path, content, 0o600); err != nil {
		p.t.Fatal(err)
	}
}

// wantMissing fails the test unless the pinned images are missing n things.
func (p *pinned) wantMissing(n int) {
	p.t.Helper()
	if missing, err := p.store.MissingPinned(); err != nil || len(missing) != n {
		p.t.Errorf("missing: %v, %v; want %d", missing, err, n)
	}
}

func TestDamagedPinnedContentIsFetchedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPinned(t)
		root, layer := p.addImage("amd64", "a")
		p.pull("v1", root)
		if err := p.store.Pin(pinnedRepo, "v1"); err != nil {
			t.Fatal(err)
		}
		end := p.run()
		defer end()
		synctest.Wait()
		p.wantMissing(0)
		tries := p.tries.Load()
		p.damage(root.Digest)
		p.damage(layer.Digest)
		if got, err := p.store.Scrub(t.Context(), nil); err != nil || got.Mismatches != 2 {
			t.Errorf("scrub: %+v, %v", got, err)
		}
		synctest.Wait()
		p.wantMissing(0)
		if got := p.tries.Load() - tries; got < 2 {
			t.Errorf("%d fetches after two files were damaged", got)
		}
		for _, desc := range []ocispec.Descriptor{root, layer} {
			if _, err := p.store.Stat(desc.Digest); err != nil {
				t.Error(err)
			}
		}
	})
}

func TestPinOfAllPlatformsFetchesAllPlatforms(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPinned(t)
		amd64, _ := p.addImage("amd64", "a")
		arm64, layer := p.addImage("arm64", "b")
		p.tag("v1", p.addJSON(ocispec.MediaTypeImageIndex, ocispec.Index{
			Versioned: specs.Versioned{SchemaVersion: 2},
			MediaType: ocispec.MediaTypeImageIndex,
			Manifests: []ocispec.Descriptor{amd64, arm64},
		}))
		if err := p.FetchManifests(t.Context(), pinnedRepo, "v1"); err != nil {
			t.Fatal(err)
		}
		if got := p.tries.Load(); got != 2 {
			t.Errorf("%d fetches for the manifests of two platforms", got)
		}
		if err := p.store.PinAllPlatforms(pinnedRepo, "v1"); err != nil {
			t.Fatal(err)
		}
		p.wantMissing(4) // two configurations, two layers
		end := p.run()
		defer end()
		synctest.Wait()
		p.wantMissing(0)
		if _, err := p.store.Stat(layer.Digest); err != nil {
			t.Error(err)
		}
	})
}

func TestFailedFetchOfPinnedContentIsTriedAgainLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPinned(t)
		root, layer := p.addImage("amd64", "a")
		p.pull("v1", root)
		if err := p.store.Pin(pinnedRepo, "v1"); err != nil {
			t.Fatal(err)
		}
		end := p.run()
		defer end()
		synctest.Wait()
		p.damage(layer.Digest)
		p.down.Store(true)
		if _, err := p.store.Scrub(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		<-time.After(20 * time.Minute)
		synctest.Wait()
		p.wantMissing(1)
		if got := p.tries.Load(); got < 5 || got > 12 {
			t.Errorf("%d fetches, the pull's included, while the upstream was down for 20 minutes", got)
		}
		p.down.Store(false)
		<-time.After(30 * time.Minute)
		synctest.Wait()
		p.wantMissing(0)
		if got := p.log.String(); !strings.Contains(got, errDown.Error()) {
			t.Errorf("the log does not have the error: %s", got)
		}
	})
}
