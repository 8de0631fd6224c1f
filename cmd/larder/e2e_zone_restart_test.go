package main

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
)

// A clientLoad is clients that pull images over and over, each of a node of its own, until stop is called.
type clientLoad struct {
	pulls atomic.Int64
	stop  func()
}

// load has a client of each node pull images. Each pull must succeed.
func (f *fleet) load(t *testing.T, images []fleetImage) *clientLoad {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	l := new(clientLoad)
	var clients sync.WaitGroup
	for n, s := range f.nodes {
		clients.Go(func() {
			for i := n; ctx.Err() == nil; i++ { // they begin with different images
				p, image := s.newPuller(t), images[i%len(images)]
				p.atOnce = layersAtOnce
				got, err := p.pull(ctx, image.repository, image.tag)
				p.client.CloseIdleConnections()
				if err == nil && got != image.Root.Digest {
					err = fmt.Errorf("%s is %s, want %s", image.tag, got, image.Root.Digest)
				}
				if err != nil && ctx.Err() == nil {
					t.Errorf("a client of the node %s, after %d pulls: %v", s.listen, l.pulls.Load(), err)
					return
				}
				l.pulls.Add(1)
			}
		})
	}
	l.stop = func() {
		cancel()
		clients.Wait()
	}
	t.Cleanup(l.stop)
	return l
}

// The sockets for clients are a service manager's, as those of every Larder that must not refuse a connection while it is
// restarted. Images that no node has come up all the time, so that nodes that stop are owners of what others fetch.
func TestZoneIsRestartedUnderLoad(t *testing.T) {
	f := newFleet(t)
	var managers []*serviceManager
	for i := range 8 {
		s := f.add(t, "a", "")
		managers = append(managers, newServiceManagerAt(t, s.listen))
		s.larder = managers[i].start(t, s)
	}
	t.Cleanup(func() { f.each(func(s *stack) { _ = s.larder.stop(syscall.SIGTERM) }) })
	f.awaitNodes(t, len(f.nodes))
	f.ecr.limit(t, upstreamConnection)
	images := make([]fleetImage, killRounds(120, 400))
	for i := range images {
		images[i] = f.image(t, 1<<10, 200<<10, 2<<20)
	}
	load := f.load(t, images)
	restart := func(i int) {
		s := f.nodes[i]
		if err := s.larder.stop(syscall.SIGTERM); err != nil {
			t.Errorf("the node %s was told to end: %v", s.listen, err)
		}
		s.larder = managers[i].start(t, s)
	}
	clients := int64(len(f.nodes))
	for i := range f.nodes { // one after another
		awaitCount(t, &load.pulls, load.pulls.Load()+2*clients)
		restart(i)
	}
	awaitCount(t, &load.pulls, load.pulls.Load()+2*clients)
	t.Logf("one zone again after %v", f.awaitNodes(t, len(f.nodes)))
	var all sync.WaitGroup
	for i := range f.nodes { // all at once
		all.Go(func() { restart(i) })
	}
	all.Wait()
	t.Logf("one zone again after %v", f.awaitNodes(t, len(f.nodes)))
	awaitCount(t, &load.pulls, load.pulls.Load()+2*clients)
	load.stop()
	t.Logf("%d pulls", load.pulls.Load())
}
