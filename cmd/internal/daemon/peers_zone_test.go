package daemon

import (
	"net/http"
	"sync"
	"testing"

	"github.com/larder-registry/larder/upstream/ecrtest"
)

// startZones starts n nodes in each of the zones a and b, and waits until all know each other.
func (z *zone) startZones(t testing.TB, n int) {
	t.Helper()
	for _, z.place = range []string{"a", "b"} {
		for range n {
			z.start(t, peerPatience, "")
		}
	}
	z.awaitNodes(t, 2*n)
}

// crossed returns how many bytes some nodes have taken from nodes that are not among them.
func crossed(some []*inside) (bytes int64) {
	for _, s := range some {
		given, taken := s.daemon.sharing.Moved()
		bytes += taken - given
	}
	return bytes
}

func TestZonesShareNothingWhileTheUpstreamAnswers(t *testing.T) {
	z := newZone(t)
	z.startZones(t, 4)
	image, bytes := z.addLayers(t, "team/app", 6<<20, 1<<20, 1000)
	z.ecr.ResetStats()
	z.pullAtOnce(t, "team/app", image)
	z.wantUpstream(t, 2*bytes, 2)
	if n := crossed(z.nodes[:4]); n != 0 {
		t.Errorf("%d bytes went between the zones", n)
	}
}

func TestOneZoneFetchesForAllWhereTheySpan(t *testing.T) {
	z := newZone(t)
	z.more = ", span: cluster"
	z.startZones(t, 3)
	image, bytes := z.addLayers(t, "team/app", 6<<20, 1<<20, 1000)
	z.ecr.ResetStats()
	z.pullAtOnce(t, "team/app", image)
	z.wantUpstream(t, bytes, 1)
	var crossed int64
	for _, s := range z.nodes {
		given, _ := s.daemon.sharing.Moved()
		crossed += given
	}
	if crossed < bytes {
		t.Errorf("the nodes gave each other %d bytes", crossed)
	}
}

// The upstream dies after one zone has an image: the other zone gets it, tag and all. What nobody has is refused, and only
// the owners and those that take their place try the upstream.
func TestOtherZoneIsAskedWhenTheUpstreamIsDead(t *testing.T) {
	z := newZone(t)
	z.startZones(t, 3)
	image, _ := z.addLayers(t, "team/app", 100_000, 200_000)
	for _, s := range z.nodes[3:] {
		s.pull(t, "team/app", image)
	}
	defer z.ecr.Inject(ecrtest.Fault{Refuse: true})()
	var pulling sync.WaitGroup
	for i, s := range z.nodes[:3] {
		pulling.Go(func() {
			if err := s.pullWhole(t.Context(), "team/app", image); err != nil {
				t.Errorf("node %d: %v\n%s", i, err, s.log)
			}
		})
	}
	pulling.Wait()
}

// A node whose upstream is offline gets nothing of the other zone, which has it, unless nodes of all zones share.
func TestOfflineLeadsToNoOtherZone(t *testing.T) {
	for more, want := range map[string]int{"": http.StatusNotFound, ", span: cluster": http.StatusOK} {
		t.Run("peers"+more, func(t *testing.T) {
			z := newZone(t)
			z.more = more
			z.startZones(t, 2)
			image, _ := z.addLayers(t, "team/app", 100_000)
			z.nodes[2].pull(t, "team/app", image)
			z.nodes[3].pull(t, "team/app", image)
			for _, s := range z.nodes[:2] {
				if err := s.daemon.setOffline(z.ecr.Host(), true); err != nil {
					t.Fatal(err)
				}
			}
			z.ecr.ResetStats()
			for _, s := range z.nodes[:2] {
				if status := s.statusOf(t, "/v2/team/app/manifests/"+image.Root.Digest.String()); status != want {
					t.Errorf("the manifest is answered with %d, want %d", status, want)
				}
			}
			if n := z.ecr.Stats().Requests; len(n) > 0 {
				t.Errorf("the upstream was asked: %v", n)
			}
		})
	}
}

// Nodes say which of the others have rights that are not theirs.
func TestNodesKnowWhoHasOtherRights(t *testing.T) {
	z := newZone(t)
	z.start(t, peerPatience, "")
	z.start(t, peerPatience, "")
	z.start(t, peerPatience, "    allow: [\"team/*\"]\n")
	z.awaitNodes(t, 3)
	for i, s := range z.nodes {
		differ := 0
		for _, n := range s.daemon.sharing.Status().Nodes {
			if n.Rights == "" {
				t.Errorf("node %d does not know the rights of %s", i, n.Address)
			}
			if n.Differs {
				differ++
			}
		}
		if want := []int{1, 1, 2}[i]; differ != want {
			t.Errorf("for node %d, %d have other rights, want %d", i, differ, want)
		}
	}
}
