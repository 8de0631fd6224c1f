package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/larder-registry/larder/cache/cachetest"
	"github.com/larder-registry/larder/upstream/ecrtest"
)

// maxRefetched bounds the bytes of one blob that are fetched again after a kill: a segment of 8 MiB for each of a fill's
// four connections.
const maxRefetched = 4 * 8 << 20

// killRounds returns how often a test kills Larder: normal times, with -short a quarter of that, and with
// LARDER_CRASH_TESTS=all, which the tests of the cache read too, all times.
func killRounds(normal, all int) int {
	switch {
	case os.Getenv("LARDER_CRASH_TESTS") == "all":
		return all
	case testing.Short():
		return normal / 4
	}
	return normal
}

// Each round kills a little later in the clients' progress than the one before: from their first bytes to their last,
// when some of the blobs are complete.
func TestKilledDuringPullsLarderResumesThem(t *testing.T) {
	t.Parallel()
	s := startStack(t)
	kills := killRounds(8, 20)
	s.ecr.limit(t, 24<<20) // a connection: the clients keep up, and fills are not done long before them
	images := make([]*ecrtest.Added, kills)
	broken := 0
	for i := range images {
		images[i] = s.ecr.add(t, plainImage{
			Repository: "kill/app",
			Tag:        fmt.Sprint(i),
			Seed:       uint64(i),
			Layers:     []int64{4 << 10, 1 << 20, 40 << 20},
		})
		received := images[i].Size * int64(2*i+1) / int64(2*kills)
		broken += s.killWhileClientsPull(t, images[i], fmt.Sprint(i), received)
		s.startLarder(t)
		requirePull(t, s.newPullers(t, 2), "kill/app", fmt.Sprint(i), images[i].Root.Digest)
		requireLittleRefetched(t, s.ecr.stats(t), images[i])
		if t.Failed() {
			t.Fatalf("in round %d, when a client had received %d bytes", i, received)
		}
	}
	if broken < kills {
		t.Errorf("%d kills broke off the pulls of only %d clients", kills, broken)
	}

	s.ecr.kill()
	for i, image := range images {
		requirePull(t, s.newPullers(t, 1), "kill/app", fmt.Sprint(i), image.Root.Digest)
	}
}

// The cache is kept full, so that every kill is during fills, commits, evictions and writes of the index. Every fourth
// kill is while Larder ends, during the snapshot and the closing of the index. The places are random.
func TestKilledAtAnyTimeLarderServesNoWrongBytes(t *testing.T) {
	t.Parallel()
	rounds := killRounds(24, 100)
	seed := rand.Uint64()
	t.Logf("seed %#x", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	s := startStack(t)
	s.stopAndCheck(t)
	const maxSize = 256 << 20 // some 200 MiB of it for blobs: half of what there is
	s.bound(t, "max_size: 256MiB, low_water: 99%")
	images := make([]*ecrtest.Added, 100)
	for i := range images {
		images[i] = s.ecr.add(t, plainImage{
			Repository: "full/app",
			Tag:        fmt.Sprint(i),
			Seed:       uint64(i),
			Layers:     []int64{4 << 10, 300 << 10, 900 << 10, 3 << 20},
		})
	}
	s.startLarder(t)
	s.pullEach(t, images)
	s.stopAndCheck(t)
	s.ecr.limit(t, 48<<20)
	snapshots := 0
	for round := range rounds {
		s.startLarder(t)
		end := s.kill
		if round%4 == 3 {
			end = s.killAtTheEnd
		}
		s.endUnderLoad(t, images, random.Int64N(20<<20), random.Uint64(), end)
		if _, err := os.Lstat(s.newSnapshot()); err == nil {
			snapshots++
		}
		if err := cachetest.CheckBlobs(s.cache); err != nil {
			t.Error(err)
		}
		if used, err := cachetest.Usage(s.cache); err != nil || used > maxSize {
			t.Errorf("the folder takes %d bytes of %d: %v", used, maxSize, err)
		}
		if round%8 == 0 || round == rounds-1 {
			s.startLarder(t)
			s.stopAndCheck(t)
		}
		if t.Failed() {
			t.Fatalf("in round %d", round)
		}
	}
	t.Logf("%d kills were in the middle of a snapshot", snapshots)
	if snapshots == 0 && rounds >= 24 {
		t.Error("no kill was in the middle of a snapshot")
	}
	s.startLarder(t)
	s.pullEach(t, images)
	if evictions := strings.Count(s.larder.logged(), "evicted"); evictions == 0 {
		t.Error("nothing had to be evicted")
	}
	s.stopAndCheck(t)
}

// pullEach pulls every image once, several at the same time.
func (s *stack) pullEach(t *testing.T, images []*ecrtest.Added) {
	t.Helper()
	var group errgroup.Group
	group.SetLimit(8)
	for i, image := range images {
		p := s.newPuller(t)
		group.Go(func() error {
			defer p.client.CloseIdleConnections()
			got, err := p.pull(t.Context(), "full/app", fmt.Sprint(i))
			if err == nil && got != image.Root.Digest {
				err = fmt.Errorf("image %d is %s, want %s", i, got, image.Root.Digest)
			}
			return err
		})
	}
	if err := group.Wait(); err != nil {
		t.Error(err)
	}
}

// stopAndCheck ends Larder as a service manager does, and checks its folder.
func (s *stack) stopAndCheck(t *testing.T) {
	t.Helper()
	if err := s.larder.stop(syscall.SIGTERM); err != nil {
		t.Errorf("larder was told to end: %v", err)
	}
	if err := cachetest.Check(s.cache); err != nil {
		t.Error(err)
	}
}

func (s *stack) newSnapshot() string { return filepath.Join(s.cache, "index.snapshot.new") }

func (s *stack) kill() { _ = s.larder.stop(syscall.SIGKILL) }

// killAtTheEnd tells Larder to end, and kills it when it begins to write the snapshot of the index, if it still runs.
func (s *stack) killAtTheEnd() {
	_ = s.larder.cmd.Process.Signal(syscall.SIGTERM)
	for s.larder.runs() {
		if _, err := os.Lstat(s.newSnapshot()); err == nil {
			break
		}
		runtime.Gosched() // the file exists for a few milliseconds
	}
	s.kill()
}

// endUnderLoad has clients pull images at random until they have received so many bytes together, when end is to end Larder.
func (s *stack) endUnderLoad(t *testing.T, images []*ecrtest.Added, received int64, seed uint64, end func()) {
	t.Helper()
	larder := s.larder
	var clients sync.WaitGroup
	// In another goroutine, so that the client goes on reading: a drain waits for it.
	wire := &tripwire{after: received, trip: sync.OnceFunc(func() { clients.Go(end) })}
	for n, p := range s.newPullers(t, 6) {
		p.seen = wire
		random := rand.New(rand.NewPCG(seed, uint64(n)))
		clients.Go(func() {
			defer p.client.CloseIdleConnections()
			for larder.runs() {
				i := random.IntN(len(images))
				got, err := p.pull(t.Context(), "full/app", fmt.Sprint(i))
				switch {
				case errors.Is(err, errWrongBytes), err != nil && larder.runs() && !wire.tripped():
					t.Errorf("a client's pull: %v", err)
					wire.trip()
				case err != nil:
					return // Larder ends
				case got != images[i].Root.Digest:
					t.Errorf("a client got %s, want %s", got, images[i].Root.Digest)
				}
			}
		})
	}
	clients.Wait()
}

// killWhileClientsPull kills Larder when the first of many cold clients has received so many bytes, and returns how many
// of them saw their pull break off.
func (s *stack) killWhileClientsPull(t *testing.T, image *ecrtest.Added, tag string, received int64) int {
	t.Helper()
	larder := s.larder
	kill := sync.OnceFunc(func() { _ = larder.stop(syscall.SIGKILL) })
	var clients sync.WaitGroup
	var broken atomic.Int64
	for _, p := range s.newPullers(t, coldClients) {
		p.seen = &tripwire{after: received, trip: kill}
		clients.Go(func() {
			got, err := p.pull(t.Context(), "kill/app", tag)
			switch {
			case errors.Is(err, errWrongBytes):
				t.Errorf("a client of a killed Larder took wrong bytes for whole: %v", err)
			case err != nil:
				broken.Add(1)
			case got != image.Root.Digest:
				t.Errorf("a client of a killed Larder got %s, want %s", got, image.Root.Digest)
			}
		})
	}
	clients.Wait()
	<-larder.exited
	return int(broken.Load())
}

// requireLittleRefetched fails the test unless the upstream sent the whole image, and little of it twice.
func requireLittleRefetched(t *testing.T, sent ecrtest.Stats, image *ecrtest.Added) {
	t.Helper()
	for _, blob := range image.Blobs {
		twice := sent.Blobs[blob.Digest].Bytes - blob.Size
		if twice < 0 || twice > min(blob.Size, maxRefetched) {
			t.Errorf("the upstream sent %d bytes of %s beyond its size of %d, want from 0 to %d",
				twice, blob.Digest, blob.Size, min(blob.Size, maxRefetched))
		}
	}
}

// A tripwire is a writer that does something when one client has received so many bytes, all bodies together.
type tripwire struct {
	after int64
	trip  func()
	seen  atomic.Int64
}

func (w *tripwire) tripped() bool { return w.seen.Load() >= w.after }

func (w *tripwire) Write(b []byte) (int, error) {
	if w.seen.Add(int64(len(b))) >= w.after {
		w.trip()
	}
	return len(b), nil
}
