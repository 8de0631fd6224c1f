package peer_test

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/larder-registry/larder/upstream/peer"
	"github.com/larder-registry/larder/upstream/upstreamtest"
)

// twoZones are nodes of which every other one is in zone b.
func twoZones(t *testing.T, n int, span bool) *zone {
	t.Helper()
	z := newZone(n)
	for i := range n {
		z.node(i).place, z.node(i).span = []string{"a", "b"}[i%2], span
	}
	z.start(t)
	return z
}

// ranked returns the numbers of a zone's nodes, the blob's owner first.
func (z *zone) ranked(place string) (some []int) {
	for _, i := range z.owner() {
		if z.node(i).place == place {
			some = append(some, i)
		}
	}
	return some
}

// moved returns how many bytes the nodes of a zone have given to others, and taken.
func (z *zone) moved(place string) (given, taken int64) {
	synctest.Wait()
	for _, i := range z.ranked(place) {
		g, t := z.node(i).peers.Moved()
		given, taken = given+g, taken+t
	}
	return given, taken
}

func TestEachZoneAsksTheUpstreamOnce(t *testing.T) {
	for span, want := range map[bool]int32{false: 2, true: 1} {
		t.Run(fmt.Sprintf("span %v", span), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				z := twoZones(t, 24, span)
				z.took = 3 * time.Second
				z.all(t, numbers(24)...)
				if n := z.asked.Load(); n != want {
					t.Errorf("the upstream was asked %d times", n)
				}
				size := int64(len(z.blob))
				for _, place := range []string{"a", "b"} {
					given, taken := z.moved(place)
					crossed := (taken - given) / size
					if !span && crossed != 0 || span && crossed*crossed != 1 {
						t.Errorf("zone %s gave %d bytes and took %d", place, given, taken)
					}
				}
			})
		})
	}
}

// What a node of zone a asks, by what it may ask and what the upstream is: nothing, its zone, the other zone, and the upstream.
func TestWhereANodeAsks(t *testing.T) {
	const (
		nobody = ""
		own    = "a"
		other  = "b"
	)
	for _, test := range []struct {
		span    bool
		offline bool   // the upstream, for zone a
		cut     bool   // the upstream, for zone a
		has     string // the zone that has the blob
		served  bool
		asks    string // the zones that ask the upstream in vain or not
		crosses bool   // bytes come from zone b
	}{
		{has: own, served: true},
		{has: other, served: true, asks: "a"},
		{has: nobody, served: true, asks: "a"},
		{cut: true, has: own, served: true},
		{cut: true, has: other, served: true, asks: "a", crosses: true},
		{cut: true, has: nobody, served: true, asks: "ab", crosses: true},
		{offline: true, has: own, served: true},
		{offline: true, has: other},
		{offline: true, has: nobody},
		{offline: true, cut: true, has: other},
		{offline: true, cut: true, has: nobody},
		{span: true, has: own, served: true},
		{span: true, has: other, served: true, crosses: true},
		{span: true, cut: true, has: other, served: true, crosses: true},
		{span: true, cut: true, has: nobody, served: true, asks: "b", crosses: true},
		{span: true, offline: true, has: own, served: true},
		{span: true, offline: true, has: other, served: true, crosses: true},
		{span: true, offline: true, has: nobody},
	} {
		t.Run(fmt.Sprintf("span %v, offline %v, cut %v, %q has it", test.span, test.offline, test.cut, test.has), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				z := twoZones(t, 8, test.span)
				a, b := z.ranked("a"), z.ranked("b")
				if first := z.owner()[0]; test.span && z.node(first).place == "a" { // zone b's owner is to be the cluster's
					for i := range 8 {
						z.node(i).leaves(t, z, first)
					}
					a = slices.DeleteFunc(a, func(i int) bool { return i == first })
					for next := a[0]; rankOf(z, next) < rankOf(z, b[0]); next = a[0] {
						for i := range 8 {
							z.node(i).leaves(t, z, next)
						}
						a = a[1:]
					}
				}
				switch test.has {
				case own:
					z.all(t, a[0])
				case other:
					z.all(t, b[0])
				}
				z.asked.Store(0)
				for i := range 8 {
					n := z.node(i)
					n.tried.Store(0)
					n.offline.Store(test.offline && n.place == "a")
					n.cut.Store(test.cut && n.place == "a")
				}
				_, before := z.moved("a")
				given, _ := z.moved("a")
				last := a[len(a)-1]
				got, err := z.node(last).get(t.Context(), 0)
				if (err == nil && string(got) == string(z.blob)) != test.served {
					t.Errorf("%d bytes and %v", len(got), err)
				}
				asks := ""
				for _, place := range []string{"a", "b"} {
					if slices.ContainsFunc(z.ranked(place), func(i int) bool { return z.node(i).tried.Load() > 0 }) {
						asks += place
					}
				}
				if asks != test.asks {
					t.Errorf("the zones %q asked the upstream, want %q", asks, test.asks)
				}
				_, after := z.moved("a")
				givenAfter, _ := z.moved("a")
				if crossed := after - before - (givenAfter - given); (crossed > 0) != test.crosses {
					t.Errorf("%d bytes crossed from the other zone", crossed)
				}
			})
		})
	}
}

func rankOf(z *zone, i int) int { return slices.Index(z.owner(), i) }

// leaves has a node forget another one.
func (n *node) leaves(t *testing.T, z *zone, gone int) {
	t.Helper()
	n.mu.Lock()
	var rest []int
	for _, known := range n.known {
		if known.Content != address(gone) {
			rest = append(rest, slices.IndexFunc(numbers(len(z.nodes)), func(i int) bool { return address(i) == known.Content }))
		}
	}
	n.mu.Unlock()
	n.knows(rest...)
}

// What two owners could not reach, the others do not try.
func TestUpstreamThatIsDownIsNotAskedByAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := newZone(20)
		z.start(t)
		for i := range 20 {
			z.node(i).cut.Store(true)
		}
		order := z.owner()
		for _, i := range order[:2] {
			if _, err := z.node(i).get(t.Context(), 0); err == nil {
				t.Errorf("node %d was served", i)
			}
		}
		var asking sync.WaitGroup
		for _, i := range order[2:] {
			asking.Go(func() {
				if _, err := z.node(i).get(t.Context(), 0); err == nil {
					t.Errorf("node %d was served", i)
				}
			})
		}
		asking.Wait()
		for _, i := range order[2:] {
			if n := z.node(i).tried.Load(); n > 0 {
				t.Errorf("node %d asked the upstream %d times", i, n)
			}
		}
		z.node(order[0]).cut.Store(false)
		<-time.After(3 * time.Second) // owners try again
		z.all(t, order[5])
	})
}

// An owner that must not ask the upstream leaves that to the node which takes its place.
func TestOwnerWhoseUpstreamIsOfflineIsReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := newZone(20)
		z.start(t)
		order := z.owner()
		z.node(order[0]).offline.Store(true)
		z.all(t, order[7])
		z.all(t, order[1:]...)
		if n := z.asked.Load(); n != 1 {
			t.Errorf("the upstream was asked %d times", n)
		}
	})
}

func TestTwoSilentNodesCostThePatienceOfOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := newZone(6)
		z.start(t)
		order := z.owner()
		for _, i := range order[:2] {
			pipes := upstreamtest.NewPipes()
			z.node(i).in = pipes
			stopped := make(chan struct{})
			go func() { // it accepts, and says nothing
				defer close(stopped)
				for {
					conn, err := pipes.Accept()
					if err != nil {
						return
					}
					defer conn.Close()
				}
			}()
			defer func() {
				pipes.Close()
				<-stopped
			}()
		}
		if took := z.all(t, order[3]); took > peer.Patience+10*time.Millisecond {
			t.Errorf("the blob took %v", took)
		}
		if avoided := z.node(order[3]).peers.Avoided(); len(avoided) != 2 {
			t.Errorf("avoided are %+v", avoided)
		}
	})
}

// The successor of an owner that drains takes from it what it has begun, and everything else is the successor's.
func TestOwnerThatDrainsHandsOver(t *testing.T) {
	for _, hasBegun := range []bool{true, false} {
		t.Run(fmt.Sprintf("begun %v", hasBegun), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				z := newZone(8)
				z.took = 2 * time.Second
				z.start(t)
				order := z.owner()
				var getting sync.WaitGroup
				if hasBegun {
					getting.Go(func() { z.all(t, order[0], order[5]) })
					<-time.After(time.Second) // it waits for the upstream
				}
				z.node(order[0]).drains.Store(true)
				for i := range 8 {
					z.node(i).knows(numbers(8)...)
				}
				z.all(t, order[1:5]...)
				getting.Wait()
				if n := z.asked.Load(); n != 1 {
					t.Errorf("the upstream was asked %d times", n)
				}
				if given, _ := z.node(order[0]).peers.Moved(); (given > 0) != hasBegun {
					t.Errorf("the node that drains gave %d bytes", given)
				}
				if got, err := z.node(order[0]).get(t.Context(), 0); err != nil || string(got) != string(z.blob) || z.asked.Load() != 1 {
					t.Errorf("a client of the node that drains got %d bytes and %v, and the upstream was asked %d times", len(got), err, z.asked.Load())
				}
			})
		})
	}
}
