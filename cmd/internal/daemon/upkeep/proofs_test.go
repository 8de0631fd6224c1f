package upkeep_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/larder-registry/larder/cache"
	"github.com/larder-registry/larder/cmd/internal/daemon/upkeep"
	"github.com/larder-registry/larder/upstream/offline"
)

// shared is a store whose layers came from one upstream, and the upkeep of its proofs.
type shared struct {
	t      *testing.T
	dir    string
	store  *cache.Store
	layers [][]byte

	mu    sync.Mutex // guards what follows
	err   error      // of the upstreams that are asked
	asked []cache.Unproven
	open  map[string]int // questions on their way
	most  int            // of one upstream
	all   int            // the most at once

	proofs *upkeep.Proofs // what run runs
}

func newShared(t *testing.T, layers int) *shared {
	s := &shared{t: t, dir: t.TempDir(), open: make(map[string]int)}
	for i := range layers {
		s.layers = append(s.layers, fmt.Appendf(nil, "layer %d", i))
	}
	s.start()
	for _, layer := range s.layers {
		s.fetch(s.store, repoOf("first.test"), layer)
	}
	return s
}

func repoOf(upstream string) cache.Repository {
	return cache.Repository{Upstream: upstream, Name: "team/app"}
}

// start opens the store. It is closed with the test.
func (s *shared) start() {
	s.t.Helper()
	var err error
	s.store, err = cache.Open(s.dir, cache.Options{Log: slog.New(slog.DiscardHandler), ScrubEvery: -1, IndexWorkers: -1})
	if err != nil {
		s.t.Fatal(err)
	}
	store := s.store
	s.t.Cleanup(func() {
		if err := store.Close(); err != nil {
			s.t.Error(err)
		}
	})
}

func (s *shared) source(store *cache.Store, repo cache.Repository, content []byte) cache.Source {
	return store.Source(repo, digest.FromBytes(content), int64(len(content)), func(_ context.Context, r cache.Range) (cache.Content, error) {
		return cache.Content{Body: io.NopCloser(bytes.NewReader(content[r.Off:])), Size: int64(len(content))}, nil
	})
}

func (s *shared) fetch(store *cache.Store, repo cache.Repository, content []byte) {
	s.t.Helper()
	blob, err := store.Open(s.t.Context(), digest.FromBytes(content), s.source(store, repo, content))
	if err == nil {
		_, err = io.Copy(io.Discard, blob)
		blob.Close()
	}
	if err != nil {
		s.t.Fatal(err)
	}
	synctest.Wait()
}

// pull has an upstream send a manifest that names all layers.
func (s *shared) pull(upstream string) {
	s.t.Helper()
	var list bytes.Buffer
	for i, layer := range s.layers {
		if i > 0 {
			list.WriteString(", ")
		}
		fmt.Fprintf(&list, `{"digest": %q, "size": %d}`, digest.FromBytes(layer), len(layer))
	}
	raw := fmt.Appendf(nil, `{"mediaType": %q, "layers": [%s]}`, ocispec.MediaTypeImageManifest, &list)
	d := digest.FromBytes(raw)
	_, _, err := s.store.Manifest(s.t.Context(), repoOf(upstream), d, func(context.Context, string, bool) (cache.Manifest, error) {
		return cache.Manifest{Digest: d, MediaType: ocispec.MediaTypeImageManifest, Size: int64(len(raw)), Raw: raw}, nil
	})
	if err != nil {
		s.t.Fatal(err)
	}
}

// served is how many layers an upstream's clients get without it.
func (s *shared) served(upstream string) (n int) {
	for _, layer := range s.layers {
		if blob := s.store.BlobHere(repoOf(upstream), digest.FromBytes(layer)); blob != nil {
			blob.Close()
			n++
		}
	}
	return n
}

// prove asks an upstream, which takes a second.
func (s *shared) prove(ctx context.Context, u cache.Unproven) error {
	s.mu.Lock()
	err := s.err
	s.asked = append(s.asked, u)
	s.open[u.Upstream]++
	s.most = max(s.most, s.open[u.Upstream])
	all := 0
	for _, n := range s.open {
		all += n
	}
	s.all = max(s.all, all)
	s.mu.Unlock()
	pass(time.Second)
	s.mu.Lock()
	s.open[u.Upstream]--
	s.mu.Unlock()
	if err != nil {
		return err
	}
	for _, layer := range s.layers {
		if digest.FromBytes(layer) == u.Digest {
			return s.source(s.store, u.Repository, layer).Member.Prove(ctx)
		}
	}
	return fs.ErrNotExist
}

func (s *shared) answer(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = err
}

// questions returns how many were asked since the last call.
func (s *shared) questions() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := len(s.asked)
	s.asked = nil
	return n
}

// run runs the upkeep until the test ends or end is called.
func (s *shared) run() (end func()) {
	ctx, cancel := context.WithCancel(s.t.Context())
	var running sync.WaitGroup
	s.proofs = upkeep.NewProofs(s.store, s.prove, slog.New(slog.DiscardHandler))
	running.Go(func() { s.proofs.Run(ctx) })
	end = sync.OnceFunc(func() {
		cancel()
		running.Wait()
	})
	s.t.Cleanup(end)
	return end
}

// pass lets simulated time pass.
func pass(d time.Duration) { <-time.After(d) }

func TestWhatAManifestNamesIsProvenAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShared(t, 5)
		s.run()
		s.pull("second.test")
		if n := s.served("second.test"); n != 0 {
			t.Errorf("%d layers are served by a manifest's word", n)
		}
		pass(10 * time.Second)
		if n := s.served("second.test"); n != 5 {
			t.Errorf("%d of 5 layers are served", n)
		}
		pass(3 * time.Hour)
		if n := s.questions(); n != 5 {
			t.Errorf("%d questions about 5 layers", n)
		}
	})
}

func TestProofIsTriedAgainUntilTheUpstreamComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShared(t, 5)
		s.run()
		s.answer(errDown)
		s.pull("second.test")
		pass(30 * time.Minute)
		if n := s.questions(); n < 10 || n > 60 {
			t.Errorf("%d questions in half an hour", n)
		}
		s.answer(nil)
		pass(5 * time.Minute)
		if n := s.served("second.test"); n != 5 {
			t.Errorf("%d of 5 layers are served", n)
		}
	})
}

func TestProofIsTriedAtOnceWhenItsUpstreamComesOnline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShared(t, 5)
		s.run()
		s.answer(&offline.Error{Host: "second.test"})
		s.pull("second.test")
		pass(30 * time.Minute) // pauses are minutes long by now
		s.questions()
		pass(2 * time.Second) // between two questions
		s.answer(nil)
		s.proofs.TryAgain()
		pass(7 * time.Second)
		if n := s.served("second.test"); n != 5 {
			t.Errorf("%d of 5 layers are served", n)
		}
	})
}

func TestRefusedProofIsAskedForOnceAnHour(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShared(t, 5)
		s.run()
		s.answer(fs.ErrNotExist)
		s.pull("liar.test")
		pass(50 * time.Minute)
		if n := s.questions(); n > 10 { // at once, and by the search after the start
			t.Errorf("%d questions about 5 layers", n)
		}
		pass(time.Hour)
		if n := s.questions(); n != 5 {
			t.Errorf("%d questions about 5 layers an hour later", n)
		}
		if n := s.served("liar.test"); n != 0 {
			t.Errorf("%d layers are served", n)
		}
	})
}

func TestProofsAreSoughtAfterARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShared(t, 5)
		end := s.run()
		s.answer(errDown)
		s.pull("second.test")
		pass(time.Second)
		end()
		if err := s.store.Close(); err != nil {
			t.Fatal(err)
		}
		s.start()
		s.answer(nil)
		s.run()
		pass(time.Minute)
		if n := s.served("second.test"); n != 5 {
			t.Errorf("%d of 5 layers are served", n)
		}
	})
}

func TestProofsAskEachUpstreamOneQuestionAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShared(t, 5)
		s.run()
		for i := range 10 {
			s.pull(fmt.Sprintf("upstream%d.test", i))
		}
		pass(time.Minute)
		if s.most != 1 || s.all != 4 {
			t.Errorf("%d questions to one upstream at once, %d to all", s.most, s.all)
		}
		if n := s.questions(); n != 50 {
			t.Errorf("%d questions", n)
		}
	})
}
