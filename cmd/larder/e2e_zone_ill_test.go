package main

import (
	"os"
	"slices"
	"sync"
	"syscall"
	"testing"
)

// An illness is what happens to an owner in the middle of a roll-out.
type illness struct {
	name     string
	isCutOff bool // others reach the node through a relay
	strike   func(t *testing.T, f *fleet, owner int)
	heal     func(t *testing.T, f *fleet, owner int)
}

func illnesses() []illness {
	return []illness{
		{
			name:   "killed",
			strike: func(_ *testing.T, f *fleet, owner int) { f.nodes[owner].kill() },
			heal:   func(t *testing.T, f *fleet, owner int) { f.nodes[owner].startLarder(t) },
		},
		{
			name: "stopped",
			strike: func(t *testing.T, f *fleet, owner int) {
				larder := f.nodes[owner].larder
				t.Cleanup(func() { _ = larder.cmd.Process.Signal(syscall.SIGCONT) }) // so that it can end
				_ = larder.cmd.Process.Signal(syscall.SIGSTOP)
			},
			heal: func(_ *testing.T, f *fleet, owner int) { _ = f.nodes[owner].larder.cmd.Process.Signal(syscall.SIGCONT) },
		},
		{
			name:     "cut off",
			isCutOff: true,
			strike:   func(_ *testing.T, f *fleet, owner int) { f.relays[owner].setCut(true) },
			heal:     func(_ *testing.T, f *fleet, owner int) { f.relays[owner].setCut(false) },
		},
	}
}

// manyLayers are the sizes of an image whose layers are spread over the zone.
func manyLayers() []int64 {
	size := int64(3 << 20)
	if os.Getenv("LARDER_CRASH_TESTS") == "all" {
		size = 24 << 20
	}
	return slices.Repeat([]int64{size}, 16)
}

// ownerOfOne returns a node that owns one of the layers with which clients begin.
func (f *fleet) ownerOfOne(image fleetImage) int {
	owned := make(map[int]int)
	for n := range layersAtOnce {
		owned[f.owner(image.layer(n))]++
	}
	for owner, n := range owned {
		if n == 1 {
			return owner
		}
	}
	return f.owner(image.layer(0))
}

// The owner falls ill in the middle of a layer. The clients of the other nodes get the image from their nodes, which fetch
// little of it again. When the others have noticed, the owner recovers, and the nodes are one zone again.
func TestZoneRollsOutWhileAnOwnerIsIll(t *testing.T) {
	for _, ill := range illnesses() {
		t.Run(ill.name, func(t *testing.T) {
			f := newFleet(t)
			for i := range 8 {
				more := ""
				if ill.isCutOff { // any of them may be the owner
					f.relay(t, i)
					more = "  advertise: " + f.host(i+relayed)
				}
				f.add(t, "a", more)
			}
			f.startAll(t)
			f.ecr.limit(t, upstreamConnection)
			image := f.image(t, manyLayers()...)
			owner := f.ownerOfOne(image)
			others := slices.Delete(slices.Clone(f.nodes), owner, owner+1)
			// The bytes of each layer that the upstream sends before the owner falls ill. The nodes that the owner gave a
			// layer to may find out at the same time, and each fetch the rest.
			sent := image.Blobs[0].Size * 2 / 3
			f.ecr.hold(t, sent)
			strike := sync.OnceFunc(func() {
				ill.strike(t, f, owner)
				f.ecr.mend(t)
			})
			f.pullOn(t, others, image, &tripwire{after: int64(len(others)) * layersAtOnce * sent / 2, trip: strike})
			f.requireLittleTwice(t, image)
			awaitPeers(t, others, len(others))
			ill.heal(t, f, owner)
			t.Logf("one zone again after %v", f.awaitNodes(t, len(f.nodes)))
			f.pullOn(t, f.nodes, f.image(t, 1000, 1<<20), nil)
		})
	}
}

// requireLittleTwice fails the test if the upstream has sent more than 1.1 times the bytes of an image.
func (f *fleet) requireLittleTwice(t *testing.T, image fleetImage) {
	t.Helper()
	bytes, _ := f.sent(t, image, f.ecr.stats(t))
	t.Logf("the upstream sent %.3f times the image", float64(bytes)/float64(image.bytes))
	if bytes > image.bytes*11/10 {
		t.Errorf("the upstream sent %d bytes, and the image has %d", bytes, image.bytes)
	}
}
