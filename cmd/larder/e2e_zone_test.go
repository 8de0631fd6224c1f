package main

import (
	"os"
	"sync"
	"testing"
)

// zoneSizes are the layers of a roll-out's image: of a size that takes the upstream some time, and with
// LARDER_CRASH_TESTS=all of a real one.
func zoneSizes() []int64 {
	if os.Getenv("LARDER_CRASH_TESTS") == "all" {
		return []int64{1 << 10, 3 << 20, 40 << 20, 90 << 20, 180 << 20}
	}
	return []int64{1 << 10, 1 << 20, 9 << 20, 40 << 20}
}

func TestZoneOfProcessesFetchesEachByteOnce(t *testing.T) {
	f := newFleet(t)
	f.start(t, 8)
	f.ecr.limit(t, upstreamConnection)
	f.requireOnce(t, 1)
}

func TestEachZoneFetchesEachByteOnce(t *testing.T) {
	f := newFleet(t)
	for i := range killRounds(24, 24) { // 6 with -short
		f.add(t, []string{"a", "b"}[i%2], "")
	}
	f.startAll(t)
	f.ecr.limit(t, upstreamConnection)
	f.requireOnce(t, 2)
}

// requireOnce has a client of each node pull an image, and fails the test unless each of some zones fetches it once. A
// round in which a node got no processor says nothing, and another one is made.
func (f *fleet) requireOnce(t *testing.T, zones int) {
	t.Helper()
	const rounds = 5
	for round := range rounds {
		silent, before := f.silent(t), f.ecr.stats(t)
		image := f.image(t, zoneSizes()...)
		f.pullOn(t, f.nodes, image, nil)
		bytes, manifests := f.sent(t, image, before)
		if t.Failed() {
			return
		}
		if passed := f.silent(t) - silent; passed > 0 && round < rounds-1 {
			t.Logf("%.0f questions were not answered in time: the upstream sent %d bytes of %d", passed, bytes, image.bytes)
			continue
		}
		if bytes != int64(zones)*image.bytes || manifests != zones {
			t.Errorf("the upstream sent %d bytes of blobs and was asked for %d manifests, want %d and %d", bytes, manifests, int64(zones)*image.bytes, zones)
		}
		return
	}
}

// The name of the upstream leads nowhere, so a containerd that falls back to it fails.
func TestContainerdsOfAZonePullFromTheirNodes(t *testing.T) {
	requireContainerd(t)
	f := newFleet(t)
	f.start(t, 8)
	f.ecr.limit(t, upstreamConnection)
	var pulling sync.WaitGroup
	for i, programs := range containerds() {
		c := programs.start(t)
		f.nodes[i].mirrorFor(t, c)
		pulling.Go(func() {
			if _, err := tryRun(t, c.env, c.ctr, "--address", c.address, "content", "fetch", "--hosts-dir", c.hosts, f.ecr.image()); err != nil {
				t.Error(err)
			}
		})
	}
	pulling.Wait()
	sent := f.ecr.stats(t).Blobs
	for d, size := range f.nodes[0].blobs(t, localPlatform()...) {
		if got := sent[d].Bytes; got != size {
			t.Errorf("the upstream sent %d bytes of %s, want %d", got, d, size)
		}
	}
}
