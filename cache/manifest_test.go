package cache

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/larder-registry/larder/cache/fill/filltest"
	"github.com/larder-registry/larder/cache/manifest"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

var (
	team  = Repository{Upstream: "registry.example", Name: "team/app"}
	other = Repository{Upstream: "registry.example", Name: "other/app"}
)

// image is a manifest at an upstream that records the requests.
type image struct {
	Manifest

	mu    sync.Mutex // guards what follows
	asked []string   // "HEAD v1", "GET sha256:…"
	err   error      // is returned instead of an answer, unless it is nil
}

func newImage(name string, layers ...*filltest.Origin) *image {
	var list []string
	for _, l := range layers {
		list = append(list, fmt.Sprintf(`{"digest": %q, "size": %d}`, l.Digest, len(l.Content)))
	}
	raw := fmt.Appendf(nil, `{"mediaType": %q, "annotations": {"name": %q}, "layers": [%s]}`,
		ocispec.MediaTypeImageManifest, name, strings.Join(list, ", "))
	return &image{Manifest: Manifest{
		Digest:    digest.FromBytes(raw),
		MediaType: ocispec.MediaTypeImageManifest,
		Size:      int64(len(raw)),
		Raw:       raw,
	}}
}

func (i *image) ask(_ context.Context, reference string, head bool) (Manifest, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	m := i.Manifest
	if head {
		i.asked = append(i.asked, "HEAD "+reference)
		m.Raw = nil
	} else {
		i.asked = append(i.asked, "GET "+reference)
	}
	return m, i.err
}

// questions returns the requests since the last call.
func (i *image) questions() []string {
	i.mu.Lock()
	defer i.mu.Unlock()
	asked := i.asked
	i.asked = nil
	return asked
}

func (i *image) fail(err error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.err = err
}

// dead is an upstream that cannot be reached.
func dead(context.Context, string, bool) (Manifest, error) {
	return Manifest{}, filltest.ErrBroken
}

func TestManifestIsFetchedOnceAndKept(t *testing.T) {
	dir := t.TempDir()
	img := newImage("a")
	s := openStore(t, dir, Options{})
	for _, want := range []State{Miss, Hit} {
		m, state, err := s.Manifest(t.Context(), team, img.Digest, img.ask)
		if err != nil || state != want {
			t.Fatalf("%s, %v", state, err)
		}
		if diff := cmp.Diff(img.Manifest, m); diff != "" {
			t.Error(diff)
		}
	}
	if asked := img.questions(); len(asked) != 1 {
		t.Errorf("asked: %v", asked)
	}
	closeStore(t, s)
	s = openStore(t, dir, Options{})
	m, state, err := s.Manifest(t.Context(), team, img.Digest, dead)
	if err != nil || state != Hit || m.MediaType != img.MediaType {
		t.Errorf("after a restart: %+v, %s, %v", m, state, err)
	}
}

func TestManifestThatNamesTooMuchIsServedAndNotKept(t *testing.T) {
	raw := fmt.Appendf(nil, `{"mediaType": %q, "layers": [`, ocispec.MediaTypeImageManifest)
	for i := range manifest.MaxChildren + 1 {
		raw = fmt.Appendf(raw, `{"digest": "sha256:%064x", "size": 1},`, i)
	}
	raw = append(raw[:len(raw)-1], "]}"...)
	img := &image{Manifest: Manifest{Digest: digest.FromBytes(raw), MediaType: ocispec.MediaTypeImageManifest, Size: int64(len(raw)), Raw: raw}}
	s := openStore(t, t.TempDir(), Options{Tags: freshness})
	for range 2 {
		for reference, get := range map[string]func() (Manifest, State, error){
			"by digest": func() (Manifest, State, error) { return s.Manifest(t.Context(), team, img.Digest, img.ask) },
			"by tag":    func() (Manifest, State, error) { return s.Tag(t.Context(), team, "v1", img.ask) },
		} {
			m, state, err := get()
			if err != nil || state != Miss || m.MediaType != img.MediaType || string(m.Raw) != string(raw) {
				t.Errorf("%s: %s, %v", reference, state, err)
			}
		}
	}
	if _, err := s.index.Blob(img.Digest); !errors.Is(err, fs.ErrNotExist) || s.items.Len() != 0 {
		t.Errorf("%d items are in the cache, and a record: %v", s.items.Len(), err)
	}
	if repos, err := s.index.Repositories(digest.Digest(fmt.Sprintf("sha256:%064x", 1)), 0); err != nil || len(repos) != 0 {
		t.Errorf("its layers belong to %v, %v", repos, err)
	}
}

func TestConcurrentRequestsFetchAManifestOnce(t *testing.T) {
	s := openStore(t, t.TempDir(), Options{})
	img := newImage("a")
	release, asked := make(chan struct{}), make(chan struct{})
	ask := func(ctx context.Context, reference string, head bool) (Manifest, error) {
		close(asked) // a second request panics
		<-release
		return img.ask(ctx, reference, head)
	}
	var clients sync.WaitGroup
	get := func() {
		if _, _, err := s.Manifest(t.Context(), team, img.Digest, ask); err != nil {
			t.Error(err)
		}
	}
	clients.Go(get)
	receive(t, asked, "the upstream is asked")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := s.Manifest(ctx, team, img.Digest, ask); !errors.Is(err, context.Canceled) {
		t.Errorf("a client that left: %v", err)
	}
	for range 8 {
		clients.Go(get)
	}
	close(release)
	clients.Wait()
}

func TestManifestOfOneRepositoryIsNotServedForAnother(t *testing.T) {
	s := openStore(t, t.TempDir(), Options{})
	img := newImage("a")
	if _, _, err := s.Manifest(t.Context(), team, img.Digest, img.ask); err != nil {
		t.Fatal(err)
	}
	img.fail(fs.ErrNotExist)
	if m, _, err := s.Manifest(t.Context(), other, img.Digest, img.ask); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v, %v", m.Digest, err)
	}
}

func TestDamagedManifestIsFetchedAgain(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir, Options{})
	img := newImage("a")
	if _, _, err := s.Manifest(t.Context(), team, img.Digest, img.ask); err != nil {
		t.Fatal(err)
	}
	closeStore(t, s)
	if err := os.WriteFile(s.folder.Blob(img.Digest), []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	s = openStore(t, dir, Options{})
	for _, want := range []State{Miss, Hit} {
		m, state, err := s.Manifest(t.Context(), team, img.Digest, img.ask)
		if err != nil || state != want || m.Size != img.Size {
			t.Errorf("%s, %v", state, err)
		}
	}
}

func TestInvalidManifestIsNotStored(t *testing.T) {
	s := openStore(t, t.TempDir(), Options{})
	a, b := newImage("a"), newImage("b")
	invalid := newDocument(ocispec.MediaTypeImageManifest, `{"layers": [{"size": 5}]}`)
	if _, _, err := s.Manifest(t.Context(), team, invalid.Digest, invalid.ask); !errors.Is(err, manifest.ErrRefused) {
		t.Errorf("an invalid manifest: %v", err)
	}
	if _, _, err := s.Manifest(t.Context(), team, a.Digest, b.ask); !errors.Is(err, manifest.ErrMismatch) {
		t.Errorf("a manifest with another digest: %v", err)
	}
	b.Digest = a.Digest
	if _, _, err := s.Manifest(t.Context(), team, a.Digest, b.ask); !errors.Is(err, manifest.ErrMismatch) {
		t.Errorf("a manifest with a false digest: %v", err)
	}
	if kept := files(t, s.folder.Dir()+"/blobs"); len(kept) > 0 {
		t.Errorf("kept: %v", kept)
	}
}

func TestManifestWithManyLayersIsKept(t *testing.T) {
	s := openStore(t, t.TempDir(), Options{})
	layers := make([]*filltest.Origin, manifest.MaxChildren-1) // beside the configuration
	for i := range layers {
		layers[i] = &filltest.Origin{Digest: digest.FromString(fmt.Sprint(i))}
	}
	img := newImage("many", layers...)
	for _, want := range []State{Miss, Hit} {
		if _, state, err := s.Manifest(t.Context(), team, img.Digest, img.ask); err != nil || state != want {
			t.Errorf("%s, %v", state, err)
		}
	}
	s.memory = newMemory()
	if rec, err := s.member(team, layers[0].Digest); err != nil || rec.Manifest {
		t.Errorf("%+v, %v", rec, err)
	}
}

// The question of work in the background may wait for its turn; a client's does not.
func TestClientDoesNotShareAQuestionOfTheBackground(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, t.TempDir(), Options{})
		img := newImage("a")
		turn, done := make(chan struct{}), make(chan error, 1)
		go func() {
			_, _, err := s.Manifest(Unattended(t.Context()), team, img.Digest, func(ctx context.Context, reference string, head bool) (Manifest, error) {
				if IsAttended(ctx) {
					t.Error("the question counts as a client's")
				}
				<-turn
				return img.ask(ctx, reference, head)
			})
			done <- err
		}()
		synctest.Wait()
		client, leave := context.WithTimeout(t.Context(), time.Minute)
		defer leave()
		if _, state, err := s.Manifest(client, team, img.Digest, img.ask); err != nil || state != Miss {
			t.Errorf("%s, %v", state, err)
		}
		close(turn)
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
