package tree_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/larder-registry/larder/upstream/peer/tree"
)

// zone is the addresses and places of n nodes.
func zone(n int) (addresses []string, places []tree.Place) {
	for i := range n {
		addresses = append(addresses, fmt.Sprintf("10.0.%d.%d:5002", i>>8, i&255))
		places = append(places, tree.PlaceOf(addresses[i]))
	}
	return addresses, places
}

func TestNodesAgreeOnOwnersInWhateverOrderTheyKnowEachOther(t *testing.T) {
	addresses, places := zone(100)
	order := rand.New(rand.NewPCG(1, 2)).Perm(100)
	shuffled := make([]tree.Place, 100)
	for i, j := range order {
		shuffled[i] = places[j]
	}
	for i := range 100 {
		key := fmt.Sprint("blob ", i)
		a, b := tree.Owners(key, places, 3), tree.Owners(key, shuffled, 3)
		if len(a) != 3 || len(b) != 3 {
			t.Fatalf("%d and %d owners", len(a), len(b))
		}
		for n := range a {
			if addresses[a[n]] != addresses[order[b[n]]] {
				t.Errorf("%s: owner %d is %s or %s", key, n, addresses[a[n]], addresses[order[b[n]]])
			}
		}
	}
}

func TestOwnersAreSpreadEvenly(t *testing.T) {
	const nodes, keys = 100, 100_000
	_, places := zone(nodes)
	owned := make([]int, nodes)
	for i := range keys {
		owned[tree.Owners(fmt.Sprint("blob ", i), places, 1)[0]]++
	}
	for i, n := range owned {
		if n < keys/nodes*8/10 || n > keys/nodes*12/10 {
			t.Errorf("node %d owns %d of %d keys", i, n, keys)
		}
	}
}

func TestNodeThatGoesChangesOnlyTheOwnersOfItsKeys(t *testing.T) {
	_, places := zone(50)
	for i := range 1000 {
		key := fmt.Sprint("blob ", i)
		owners := tree.Owners(key, places, 2)
		rest := append([]tree.Place(nil), places[:7]...)
		rest = append(rest, places[8:]...)
		want := owners[0]
		if want == 7 {
			want = owners[1] // the one that takes its place
		}
		if got := places[want]; rest[tree.Owners(key, rest, 1)[0]] != got {
			t.Errorf("%s has another owner without node 7", key)
		}
	}
}

func TestOwnersOfFewNodes(t *testing.T) {
	_, places := zone(2)
	for n := range 3 {
		if got := tree.Owners("blob", places[:n], 3); len(got) != n {
			t.Errorf("%d nodes have the owners %v", n, got)
		}
	}
}

var start = time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)

// ask asks for the same blob, some time after start.
func ask(g *tree.Giver, after time.Duration, child string, avoid ...string) string {
	v, to := g.Ask(tree.Request{Blob: "blob", Child: child, Avoid: avoid, Now: start.Add(after)})
	return [...]string{"give", "pass to " + to, "busy"}[v]
}

// want compares decisions, one after the other.
func want(t *testing.T, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestFurtherNodesArePassedOnInTurn(t *testing.T) {
	g := tree.NewGiver(2)
	want(t, ask(g, 0, "a"), "give")
	want(t, ask(g, 0, "b"), "give")
	want(t, ask(g, 0, "c"), "pass to a")
	want(t, ask(g, 0, "d"), "pass to b")
	want(t, ask(g, 0, "e"), "pass to a")
	want(t, ask(g, 0, "a"), "give") // for another part
}

func TestPlaceIsFreeAgainWhenABlobWasGiven(t *testing.T) {
	g := tree.NewGiver(1)
	want(t, ask(g, 0, "a"), "give")
	want(t, ask(g, 0, "b"), "pass to a")
	g.Done("blob", "a", false, start.Add(time.Second))
	want(t, ask(g, time.Second+500*time.Millisecond, "b"), "pass to a") // a asks for the next part soon
	want(t, ask(g, 3*time.Second, "b"), "give")
	g.Done("blob", "b", true, start.Add(4*time.Second))
	want(t, ask(g, 4*time.Second, "c"), "give")
}

func TestNodeThatWasComplainedAboutIsLeftOutForAWhile(t *testing.T) {
	g := tree.NewGiver(2)
	want(t, ask(g, 0, "a"), "give")
	want(t, ask(g, 0, "b"), "give")
	want(t, ask(g, 0, "c"), "pass to a")
	want(t, ask(g, 0, "c", "a"), "pass to b")
	want(t, ask(g, 0, "d"), "pass to b") // though a had fewer
	want(t, ask(g, 0, "d", "b"), "give") // rather than send it to the upstream
	want(t, ask(g, 0, "e", "b"), "pass to d")
	want(t, ask(g, 11*time.Second, "f"), "pass to a")
	want(t, ask(g, 11*time.Second, "g"), "pass to d")
}

func TestGiverIsBusyRatherThanOverrun(t *testing.T) {
	g := tree.NewGiver(1)
	want(t, ask(g, 0, "a"), "give")
	want(t, ask(g, 0, "b", "a"), "give")
	want(t, ask(g, 0, "c", "a", "b"), "busy")
	want(t, ask(g, 0, "d"), "busy") // both were complained about
}

func TestWhatWasGivenIsForgotten(t *testing.T) {
	g := tree.NewGiver(1)
	want(t, ask(g, 0, "a"), "give")
	g.Done("blob", "a", true, start)
	want(t, ask(g, time.Second, "b"), "give")
	want(t, ask(g, 3*time.Minute, "c"), "pass to b") // it is still being given; a is forgotten
	g.Done("other blob", "a", true, start)
	g.Done("blob", "nobody", true, start)
}

// Whatever is asked, a node never gives a blob to more than twice its children, and passes nobody on to itself
// or to a node that it says to avoid.
func TestGiverStaysWithinItsBounds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		most := rapid.IntRange(1, 4).Draw(t, "children")
		g := tree.NewGiver(most)
		now := start
		nodes := rapid.SampledFrom([]string{"a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"})
		open := make(map[string]int)
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.IntRange(0, 5000).Draw(t, "ms")) * time.Millisecond)
			node := nodes.Draw(t, "node")
			if open[node] > 0 && rapid.Bool().Draw(t, "done") {
				g.Done("blob", node, rapid.Bool().Draw(t, "whole"), now)
				if open[node]--; open[node] == 0 {
					delete(open, node)
				}
				continue
			}
			avoid := rapid.SliceOfN(nodes, 0, 3).Draw(t, "avoid")
			v, to := g.Ask(tree.Request{Blob: "blob", Child: node, Avoid: avoid, Now: now})
			switch v {
			case tree.Give:
				open[node]++
			case tree.Pass:
				if to == node || to == "" {
					t.Fatalf("%s is passed on to %q", node, to)
				}
				for _, a := range avoid {
					if a == to {
						t.Fatalf("%s is passed on to %s, which it avoids", node, to)
					}
				}
			case tree.Busy:
			}
			if len(open) > 2*most {
				t.Fatalf("%d nodes get the blob, of at most 2*%d", len(open), most)
			}
		}
	})
}

func BenchmarkOwnersOf5000Nodes(b *testing.B) {
	_, places := zone(5000)
	for b.Loop() {
		tree.Owners("sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", places, 3)
	}
}
