package members

import (
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// gossipSizes are how many nodes gossip in the test: those of LARDER_GOSSIP_NODES, such as 100,300,600, or a few.
func gossipSizes(t *testing.T) (sizes []int) {
	t.Helper()
	for _, text := range strings.Split(os.Getenv("LARDER_GOSSIP_NODES"), ",") {
		if n, err := strconv.Atoi(text); err == nil {
			sizes = append(sizes, n)
		} else if text != "" {
			t.Fatal(err)
		}
	}
	if sizes == nil {
		return []int{10, 30}
	}
	return sizes
}

// Gossip costs each node some bytes a second and some memory. OPERATIONS.md has the figures of 100, 300 and 600 nodes, and
// what follows for 5,000.
func TestGossipCostsLittle(t *testing.T) {
	for _, n := range gossipSizes(t) {
		t.Run(strconv.Itoa(n), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				before := heap()
				c := newCluster()
				var nodes []*Members
				for i := range n {
					nodes = append(nodes, c.open(t, i))
				}
				defer func() {
					var closing sync.WaitGroup
					for _, m := range nodes {
						closing.Go(func() {
							if err := m.Close(); err != nil {
								t.Error(err)
							}
						})
					}
					closing.Wait()
					<-time.After(lastProbe)
				}()
				await(t, 10*time.Minute, n, nodes...)
				const minutes = 3
				packets, streams := c.packets.Load(), c.streams.Load()
				<-time.After(minutes * time.Minute)
				perSecond := func(bytes int64) float64 { return float64(bytes) / (minutes * 60) / float64(n) }
				memory := float64(heap()-before) / float64(n)
				udp, tcp := perSecond(c.packets.Load()-packets), perSecond(c.streams.Load()-streams)
				t.Logf("%d nodes: each sends %.0f bytes a second over UDP, %.0f over TCP, and has %.0f KiB of memory, %.0f bytes for each node it knows",
					n, udp, tcp, memory/1024, memory/float64(n))
				if udp > 2000 || tcp > 20*float64(n) {
					t.Error("gossip costs too much")
				}
			})
		})
	}
}

// heap returns how many bytes of the heap are in use.
func heap() int64 {
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return int64(stats.HeapAlloc + stats.StackInuse)
}
