package members

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/larder-registry/larder/upstream/peer/ring"
	"github.com/larder-registry/larder/upstream/upstreamtest"
)

// cluster is some nodes on a network.
type cluster struct {
	*network
	key ring.Key
	log upstreamtest.Log
}

func newCluster() *cluster { return &cluster{network: newNetwork(), key: ring.NewKey()} }

// addr is the gossip's address of node i. Its content is at the port before.
func addr(i int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 5003)
}

// start starts node i, which joins some others by default node 0, and ends it after the test.
func (c *cluster) start(t *testing.T, i int, change ...func(*Options)) *Members {
	t.Helper()
	m := c.open(t, i, change...)
	t.Cleanup(func() { // twice does no harm: some tests close before
		if err := m.Close(); err != nil {
			t.Error(err)
		}
		<-time.After(lastProbe)
	})
	return m
}

// lastProbe is how long after its end memberlist's last probe may take, which it does not await.
const lastProbe = 10 * time.Second

// open is start for a node that the caller closes.
func (c *cluster) open(t *testing.T, i int, change ...func(*Options)) *Members {
	t.Helper()
	opts := Options{
		Ring:      ring.New(c.key),
		Bind:      addr(i),
		Content:   netip.AddrPortFrom(addr(i).Addr(), 5002),
		Join:      []string{addr(0).String()},
		Zone:      fmt.Sprintf("zone-%d", i%2),
		Version:   "v1.0.0",
		Log:       c.log.Logger(),
		Transport: c.join(addr(i)),
	}
	for _, f := range change {
		f(&opts)
	}
	m, err := Open(opts)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// await waits until some nodes know exactly want nodes each.
func await(t *testing.T, atMost time.Duration, want int, nodes ...*Members) {
	t.Helper()
	knowing := func(m *Members) bool { return len(m.All()) == want }
	for began := time.Now(); time.Since(began) < atMost; <-time.After(100 * time.Millisecond) {
		if !slices.ContainsFunc(nodes, func(m *Members) bool { return !knowing(m) }) {
			return
		}
	}
	known := make([]int, len(nodes))
	for i, m := range nodes {
		known[i] = len(m.All())
	}
	t.Fatalf("after %v the nodes know %d nodes, want %d each", atMost, known, want)
}

// A node that has to find its zone starts at once, and joins nobody before it knows.
func TestZoneIsFoundBeforeOthersAreJoined(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster()
		first := c.start(t, 0)
		const takes = 5 * time.Second
		began := time.Now()
		second := c.start(t, 1, func(o *Options) {
			o.Zone, o.FindZone = "", func(context.Context) string {
				<-time.After(takes)
				return "us-east-1a" + strings.Repeat("z", MaxZone)
			}
		})
		if took := time.Since(began); took > 0 {
			t.Errorf("the start took %v", took)
		}
		<-time.After(takes - time.Millisecond)
		if n := len(first.All()); n != 1 {
			t.Errorf("%d nodes are known before the zone is", n)
		}
		await(t, 10*time.Second, 2, first, second)
		for _, n := range slices.Concat(first.All(), second.All()) {
			if n.Content == second.Self().Content && (len(n.Zone) != MaxZone || !strings.HasPrefix(n.Zone, "us-east-1a")) {
				t.Errorf("the node is known in the zone %q", n.Zone)
			}
		}
	})
}

func TestNodesFindEachOtherWithWhatTheyTell(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster()
		var changes atomic.Int32
		a := c.start(t, 0, func(o *Options) { o.Changed = func() { changes.Add(1) } })
		b := c.start(t, 1, func(o *Options) { o.Rights = 42 })
		d := c.start(t, 2)
		await(t, 10*time.Second, 3, a, b, d)
		want := b.Self()
		want.Self, want.Gossip = false, addr(1)
		if got := a.All()[1]; got != want {
			t.Errorf("node 0 knows node 1 as %+v, want %+v", got, want)
		}
		if changes.Load() < 3 {
			t.Errorf("%d changes were told", changes.Load())
		}
		b.Drain()
		<-time.After(2 * time.Second)
		if !a.All()[1].Draining || a.All()[2].Draining {
			t.Errorf("node 0 does not know that node 1, and none else, drains: %+v", a.All())
		}
	})
}

func TestNodeThatLeavesOrDiesIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster()
		a, b, d := c.start(t, 0), c.start(t, 1), c.start(t, 2)
		await(t, 10*time.Second, 3, a, b, d)
		if err := d.Close(); err != nil {
			t.Error(err)
		}
		await(t, 5*time.Second, 2, a, b)
		c.cut(addr(1))
		await(t, time.Minute, 1, a)
	})
}

func TestClusterCutInTwoIsOneAgainWithinAMinute(t *testing.T) {
	for name, join := range map[string][]string{
		"a name with all addresses": {"dns:larder-peers:5003"},
		"one node of one side":      {addr(0).String()},
		"nobody but each other":     nil, // but for the first time
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster()
				var nodes []*Members
				for i := range 6 {
					nodes = append(nodes, c.start(t, i, func(o *Options) {
						o.Join = join
						o.Lookup = func(_ context.Context, host string) ([]netip.Addr, error) {
							if host != "larder-peers" {
								t.Errorf("%s was looked up", host)
							}
							var all []netip.Addr
							for i := range 6 {
								all = append(all, addr(i).Addr())
							}
							return all, nil
						}
					}))
					if _, err := nodes[i].list.Join([]string{addr(0).String()}); err != nil {
						t.Fatal(err)
					}
				}
				await(t, 5*time.Minute, 6, nodes...) // all start at one instant, and memberlist exchanges what it knows each half a minute
				c.cut(addr(3), addr(4), addr(5))
				await(t, 5*time.Minute, 3, nodes...)
				<-time.After(2 * time.Minute) // longer than memberlist remembers
				c.cut()
				await(t, time.Minute, 6, nodes...)
			})
		})
	}
}

func TestNamesAreLookedUpAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster()
		var known atomic.Bool
		a := c.start(t, 0, func(o *Options) { o.Join = nil })
		b := c.start(t, 1, func(o *Options) {
			o.Join = []string{"larder-peers:5003", "not an address"}
			o.Lookup = func(context.Context, string) ([]netip.Addr, error) {
				if !known.Load() {
					return nil, errors.New("no such host")
				}
				return []netip.Addr{addr(0).Addr()}, nil
			}
		})
		<-time.After(5 * time.Minute)
		if n := len(b.All()); n != 1 {
			t.Errorf("node 1 knows %d nodes", n)
		}
		if n := strings.Count(c.log.String(), "level=INFO"); n != 2 {
			t.Errorf("that nobody is found was logged %d times:\n%s", n, c.log.String())
		}
		known.Store(true)
		await(t, time.Minute, 2, a, b)
	})
}

func TestNodeThatStartsAgainTakesItsPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster()
		a, b := c.start(t, 0), c.start(t, 1)
		await(t, 10*time.Second, 2, a, b)
		c.kill(addr(1))
		again := c.start(t, 1, func(o *Options) { o.Version = "v1.0.1" })
		await(t, 10*time.Second, 2, a, again)
		<-time.After(time.Minute)
		if all := a.All(); len(all) != 2 || all[1].Name != again.Self().Name || all[1].Version != "v1.0.1" {
			t.Errorf("node 0 knows %+v", all)
		}
	})
}

func TestNodeWithoutTheKeyIsNotHeard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster()
		a, b := c.start(t, 0), c.start(t, 1)
		stranger := c.start(t, 2, func(o *Options) { o.Ring = ring.New(ring.NewKey()) })
		await(t, 10*time.Second, 2, a, b)
		<-time.After(time.Minute)
		await(t, time.Second, 2, a, b)
		await(t, time.Second, 1, stranger)
	})
}

func TestRotationOfKeysLosesNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster()
		after := ring.NewKey()
		nodes := []*Members{c.start(t, 0), c.start(t, 1), c.start(t, 2)}
		await(t, 10*time.Second, 3, nodes...)
		for _, keys := range [][]ring.Key{{c.key, after}, {after, c.key}, {after}} {
			for _, m := range nodes {
				m.ring.Change(keys)
				if err := m.Rekey(); err != nil {
					t.Fatal(err)
				}
				for range 60 { // nobody is suspected meanwhile
					<-time.After(time.Second)
					await(t, time.Millisecond, 3, nodes...)
				}
			}
		}
		late := c.start(t, 3)
		<-time.After(time.Minute)
		await(t, time.Second, 1, late) // the first key is worth nothing any more
		await(t, time.Second, 3, nodes...)
	})
}
