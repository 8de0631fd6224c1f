package main

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/larder-registry/larder/upstream/ecrtest"
)

const (
	kills = 20
	// maxRefetched is what a kill may cost of one blob: a segment of 8 MiB for each of a fill's four connections.
	maxRefetched = 4 * 8 << 20
)

// Each round kills a little later in the clients' progress than the one before: from their first bytes to their last,
// when some of the blobs are complete.
func TestKilledInTheMiddleOfPullsItGoesOnWhereItWas(t *testing.T) {
	s := startStack(t)
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
		received := images[i].Size * int64(2*i+1) / (2 * kills)
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

func (w *tripwire) Write(b []byte) (int, error) {
	if w.seen.Add(int64(len(b))) >= w.after {
		w.trip()
	}
	return len(b), nil
}
