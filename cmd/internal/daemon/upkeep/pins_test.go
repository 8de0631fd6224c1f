package upkeep_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
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
	"github.com/larder-registry/larder/upstream/link"
	"github.com/larder-registry/larder/upstream/offline"
	"github.com/larder-registry/larder/upstream/reply"
)

var pinnedRepo = cache.Repository{Upstream: "registry.test", Name: "team/app"}

// pinned is a store with images of an upstream in memory, and the upkeep of its pins.
type pinned struct {
	t       *testing.T
	dir     string
	store   *cache.Store
	content map[digest.Digest][]byte // of the upstream
	log     text
	*upkeep.Pins

	down  atomic.Bool  // the upstream fails
	tries atomic.Int64 // fetches of the upkeep
	sea   atomic.Bool  // the upstream is offline
	link  *link.Link   // may be nil
	waits atomic.Int64 // those of them for which somebody waits
	gone  sync.Map     // digests that the upstream says it does not have
}

func newPinned(t *testing.T) *pinned {
	p := &pinned{t: t, dir: t.TempDir(), content: make(map[digest.Digest][]byte)}
	var err error
	p.store, err = cache.Open(p.dir, cache.Options{Log: slog.New(slog.DiscardHandler), ScrubEvery: -1, IndexWorkers: -1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.store.Close(); err != nil {
			t.Error(err)
		}
	})
	p.Pins = upkeep.NewPins(p.store, p, p.isPostponed, slog.New(slog.NewTextHandler(&p.log, nil)))
	return p
}

func (p *pinned) isPostponed(host string) error {
	if p.sea.Load() {
		return &offline.Error{Host: host}
	}
	return p.link.Postponed()
}

var errDown = errors.New("the upstream is down")

func (p *pinned) FetchManifest(ctx context.Context, repo cache.Repository, dgst digest.Digest) (cache.Manifest, error) {
	p.count(ctx)
	m, _, err := p.store.Manifest(ctx, repo, dgst, p.ask)
	return m, err
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

func (p *pinned) FetchBlob(ctx context.Context, _ cache.Repository, dgst digest.Digest, size int64) (int64, error) {
	p.count(ctx)
	if p.down.Load() {
		return 0, errDown
	}
	if _, gone := p.gone.Load(dgst); gone {
		return 0, &reply.Error{Status: http.StatusNotFound}
	}
	content := p.content[dgst]
	return p.store.Fetch(ctx, dgst, cache.Source{Size: size, Fetch: func(_ context.Context, r cache.Range) (cache.Content, error) {
		return cache.Content{Body: io.NopCloser(bytes.NewReader(content[r.Off:])), Size: int64(len(content))}, nil
	}})
}

func (p *pinned) count(ctx context.Context) {
	p.tries.Add(1)
	if cache.IsAttended(ctx) {
		p.waits.Add(1)
	}
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
		if _, err := p.FetchBlob(p.t.Context(), pinnedRepo, desc.Digest, desc.Size); err != nil {
			p.t.Fatal(err)
		}
	}
	synctest.Wait() // for the files to get their names
}

// pin caches and pins an image of one platform by a tag, which is the text of its layer, too.
func (p *pinned) pin(tag string) (manifest, layer ocispec.Descriptor) {
	p.t.Helper()
	manifest, layer = p.addImage("amd64", tag)
	p.pull(tag, manifest)
	if err := p.store.Pin(pinnedRepo, tag); err != nil {
		p.t.Fatal(err)
	}
	return manifest, layer
}

// run runs the upkeep until end is called. It is called in a bubble.
func (p *pinned) run() (end func()) {
	ctx, cancel := context.WithCancel(p.t.Context())
	var running sync.WaitGroup
	running.Go(func() { p.Run(ctx) })
	return func() {
		cancel()
		running.Wait()
	}
}

// damage changes the last bit of the files of blobs, and has the store find that out.
func (p *pinned) damage(blobs ...ocispec.Descriptor) {
	p.t.Helper()
	for _, blob := range blobs {
		content := bytes.Clone(p.content[blob.Digest])
		content[len(content)-1] ^= 1
		path := filepath.Join(p.dir, "blobs", blob.Digest.Algorithm().String(), blob.Digest.Encoded()[:2], blob.Digest.Encoded())
		if err := os.WriteFile(path, content, 0o600); err != nil {
			p.t.Fatal(err)
		}
	}
	if got, err := p.store.Scrub(p.t.Context(), nil); err != nil || got.Mismatches != int64(len(blobs)) {
		p.t.Fatalf("scrub: %+v, %v; want %d mismatches", got, err, len(blobs))
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
		root, layer := p.pin("v1")
		end := p.run()
		defer end()
		synctest.Wait()
		p.wantMissing(0)
		tries := p.tries.Load()
		p.damage(root, layer)
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
		for _, m := range []ocispec.Descriptor{amd64, arm64} {
			if _, err := p.FetchManifest(t.Context(), pinnedRepo, m.Digest); err != nil {
				t.Fatal(err)
			}
		}
		if err := p.store.PinAllPlatforms(pinnedRepo, "v1"); err != nil {
			t.Fatal(err)
		}
		p.wantMissing(4) // two configurations, two layers
		end := p.run()
		defer end()
		synctest.Wait()
		p.wantMissing(0)
		if tries, waits := p.tries.Load(), p.waits.Load(); tries != 6 || waits != 2 {
			t.Errorf("%d fetches, %d of them attended; nobody waits for those of the upkeep", tries, waits)
		}
		if _, err := p.store.Stat(layer.Digest); err != nil {
			t.Error(err)
		}
	})
}

func TestFailedFetchOfPinnedContentIsTriedAgainLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPinned(t)
		_, layer := p.pin("v1")
		end := p.run()
		defer end()
		synctest.Wait()
		p.down.Store(true)
		p.damage(layer)
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

func TestSilentUpstreamOfPinnedContentIsAskedOnceARound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPinned(t)
		var layers []ocispec.Descriptor
		for _, text := range []string{"a", "b", "c"} {
			_, layer := p.pin(text)
			layers = append(layers, layer)
		}
		p.down.Store(true)
		p.tries.Store(0)
		p.damage(layers...)
		end := p.run()
		defer end()
		synctest.Wait()
		p.wantMissing(3)
		if got := p.tries.Load(); got != 1 {
			t.Errorf("%d questions in one round to an upstream that does not answer", got)
		}
		p.down.Store(false)
		<-time.After(10 * time.Minute)
		synctest.Wait()
		p.wantMissing(0)
	})
}

func TestContentThatAnUpstreamRefusesDoesNotHoldUpTheRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPinned(t)
		var layers []ocispec.Descriptor
		for _, text := range []string{"a", "b", "c"} {
			_, layer := p.pin(text)
			layers = append(layers, layer)
			if text == "a" {
				p.gone.Store(layer.Digest, nil)
			}
		}
		p.damage(layers...)
		end := p.run()
		defer end()
		synctest.Wait()
		p.wantMissing(1)
	})
}

func TestPinsAreSilentWhileTheirUpstreamIsOffline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPinned(t)
		_, layer := p.pin("v1")
		end := p.run()
		defer end()
		synctest.Wait()
		p.sea.Store(true)
		p.tries.Store(0)
		p.log.Reset()
		p.damage(layer)
		<-time.After(3 * time.Hour)
		synctest.Wait()
		if n := p.tries.Load(); n != 0 || p.log.String() != "" {
			t.Errorf("%d fetches, and in the log: %s", n, &p.log)
		}
		p.wantMissing(1)
		began := time.Now()
		p.sea.Store(false)
		p.TryAgain()
		synctest.Wait()
		p.wantMissing(0)
		if took := time.Since(began); took != 0 {
			t.Errorf("the content came %v after the upstream was online again", took)
		}
	})
}

func TestMissingPinnedContentIsFetchedWhenTheHoursBegin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPinned(t)
		_, layer := p.pin("v1")
		begin := time.Now().Add(40 * time.Minute).Truncate(time.Minute)
		minute := func(at time.Time) int { return at.Hour()*60 + at.Minute() }
		p.link = link.New(link.Rules{Hours: link.Hours{From: minute(begin), To: minute(begin.Add(time.Hour))}})
		end := p.run()
		defer end()
		p.log.Reset()
		p.damage(layer)
		<-time.After(time.Until(begin) - time.Second)
		synctest.Wait()
		p.wantMissing(1)
		if p.log.String() != "" {
			t.Errorf("in the log: %s", &p.log)
		}
		<-time.After(2 * time.Second)
		synctest.Wait()
		p.wantMissing(0)
	})
}

// text is a log that may be read while it is written.
type text struct {
	mu  sync.Mutex // guards all
	all bytes.Buffer
}

func (l *text) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all.Write(p)
}

func (l *text) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all.String()
}

func (l *text) Reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all.Reset()
}
