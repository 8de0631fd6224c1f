package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// Bounds of Larder's resident memory, as the kernel counts it.
const (
	maxIdleMemory = 50 << 20
	maxPeakMemory = 150 << 20
)

// The clients of the test. All 64 at full speed would take two cores most of a minute for 32 GiB, and no more memory:
// a body takes the same whether its client reads or not.
const (
	fastClients    = 2  // read and check everything
	stalledClients = 62 // stop reading in the middle of every layer, and leave when the fast ones are done
)

func TestMemoryIsBoundedWhileManyClientsPullALargeColdImage(t *testing.T) {
	t.Parallel()
	s := startStack(t)
	if idle := s.larder.memory(t, "VmRSS"); idle > maxIdleMemory {
		t.Errorf("it takes %d MiB when idle, want %d at most", idle>>20, maxIdleMemory>>20)
	}
	image := s.ecr.add(t, plainImage{
		Repository: "large/app",
		Tag:        "1",
		Seed:       1,
		Layers:     []int64{256 << 20, 128 << 20, 64 << 20, 32 << 20, 16 << 20, 16 << 20},
	})
	fast, leave := s.newPullers(t, fastClients), make(chan struct{})
	var stalled sync.WaitGroup
	defer stalled.Wait()
	defer close(leave)
	for _, p := range s.newPullers(t, stalledClients) {
		p.seen = &gate{after: 4 << 20, open: leave}
		stalled.Go(func() {
			if _, err := p.pull(t.Context(), "large/app", "1"); !errors.Is(err, errLeft) {
				t.Errorf("a client that stalled: %v", err)
			}
		})
	}
	requirePull(t, fast, "large/app", "1", image.Root.Digest)
	if peak := s.larder.memory(t, "VmHWM"); peak > maxPeakMemory {
		t.Errorf("it took up to %d MiB, want %d at most", peak>>20, maxPeakMemory>>20)
	}
}

// A gate is a writer at which a client stalls, and leaves.
type gate struct {
	after int64 // bytes that pass, all bodies together
	open  <-chan struct{}
	seen  atomic.Int64
}

var errLeft = errors.New("the client leaves")

func (g *gate) Write(b []byte) (int, error) {
	if g.seen.Add(int64(len(b))) <= g.after {
		return len(b), nil
	}
	<-g.open
	return 0, errLeft
}

// memory reads one of the kernel's counts of the process's memory, in bytes (proc_pid_status(5)).
func (p *process) memory(t *testing.T, count string) int64 {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.Lines(status) {
		name, value, _ := strings.Cut(string(line), ":")
		if name != count {
			continue
		}
		kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
		if err != nil {
			t.Fatalf("%s is %q: %v", count, value, err)
		}
		return kib << 10
	}
	t.Fatalf("the kernel does not tell %s", count)
	return 0
}
