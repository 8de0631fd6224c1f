package tree_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/larder-registry/larder/upstream/peer/tree"
)

// The simulation is of a zone in which all nodes pull an image at once: 1 GiB in 8 layers. It runs the code of
// nodes for owners and trees, and divides the speed of a node's network evenly. Time goes on in steps.
const (
	simStep   = 5 * time.Millisecond
	simLayers = 8
	simLayer  = int64(128 << 20)
	simSpeed  = 1.25e9 // bytes a second: a network of 10 Gb/s, in each direction
	simSilent = 250 * time.Millisecond
	simEnd    = 30 * time.Second
)

// sharing is how the nodes share.
type sharing int

const (
	inTrees    sharing = iota
	byOwners           // without trees: each owner gives its blobs to all
	wholeBlobs         // a node gives only what it has all of, and asks the upstream if nobody has
	notAtAll
)

// simulation is one roll-out.
type simulation struct {
	how   sharing
	rng   *rand.Rand
	now   time.Time
	nodes []*simNode
	order [simLayers][]int // the owners of each layer, of all nodes

	upstream float64       // bytes from it
	fast     time.Duration // until all nodes that are not slow had all layers
	most     float64       // the most that a node gave in a step, in bytes a second
}

// simNode is a node.
type simNode struct {
	address string
	speed   float64
	dies    time.Duration // after the beginning; 0 means never
	lag     time.Duration // its view of who is alive is that old
	giver   *tree.Giver
	got     [simLayers]float64
	source  [simLayers]int // the node that gives a layer
	retry   [simLayers]time.Time
	avoid   map[int]bool
	out     int
	in      int
}

const (
	fromNobody   = -1
	fromUpstream = -2
)

func newSimulation(n int, how sharing, seed uint64, dying, slow float64) *simulation {
	s := &simulation{how: how, rng: rand.New(rand.NewPCG(seed, 1)), now: start}
	children := 0
	if how == byOwners {
		children = n
	}
	addresses, places := zone(n)
	for i := range n {
		node := &simNode{address: addresses[i], speed: simSpeed, giver: tree.NewGiver(children), avoid: make(map[int]bool)}
		if s.rng.Float64() < dying {
			node.dies = time.Duration(s.rng.Float64() * 2 * float64(time.Second))
		}
		if s.rng.Float64() < slow {
			node.speed = simSpeed / 10
		}
		node.lag = time.Duration(s.rng.Float64() * 3 * float64(time.Second))
		for l := range simLayers {
			node.source[l] = fromNobody
			node.retry[l] = start.Add(time.Duration(s.rng.IntN(100)) * time.Millisecond) // they do not begin at the same moment
		}
		s.nodes = append(s.nodes, node)
	}
	for l := range simLayers {
		s.order[l] = tree.Owners(fmt.Sprint("layer ", l), places, 50)
	}
	return s
}

func (s *simulation) isDead(i int, at time.Time) bool {
	d := s.nodes[i].dies
	return d > 0 && !at.Before(start.Add(d))
}

// run returns how long it took until all nodes that live had all layers.
func (s *simulation) run() time.Duration {
	byAddress := make(map[string]int)
	for i, n := range s.nodes {
		byAddress[n.address] = i
	}
	for s.now.Sub(start) < simEnd {
		done, fast := true, true
		for i, n := range s.nodes {
			if s.isDead(i, s.now) {
				continue
			}
			for l := range simLayers {
				if int64(n.got[l]) >= simLayer {
					continue
				}
				done = false
				fast = fast && n.speed < simSpeed
				if from := n.source[l]; from >= 0 && s.isDead(from, s.now) {
					n.avoid[from], n.source[l], n.retry[l] = true, fromNobody, s.now
				}
				if n.source[l] == fromNobody && !s.now.Before(n.retry[l]) {
					s.ask(i, l, byAddress)
				}
			}
		}
		if fast && s.fast == 0 {
			s.fast = s.now.Sub(start)
		}
		if done {
			return s.now.Sub(start)
		}
		s.transfer()
		s.now = s.now.Add(simStep)
	}
	return simEnd
}

// ask finds a source for a node's layer: as peer.Source does.
func (s *simulation) ask(i, l int, byAddress map[string]int) {
	n := s.nodes[i]
	n.source[l] = fromUpstream
	if s.how == notAtAll {
		return
	}
	asked := 0
	for _, owner := range s.order[l] {
		switch {
		case owner == i || asked == 2:
			return
		case n.avoid[owner] || s.isDead(owner, s.now.Add(-n.lag)):
			continue
		}
		asked++
		if s.isDead(owner, s.now) {
			n.avoid[owner], n.source[l], n.retry[l] = true, fromNobody, s.now.Add(simSilent)
			return
		}
		if from, ok := s.follow(i, l, owner, byAddress); ok {
			n.source[l] = from
			return
		}
		if n.source[l] == fromNobody {
			return
		}
	}
}

// follow asks an owner, and the nodes that the question is passed on to.
func (s *simulation) follow(i, l, owner int, byAddress map[string]int) (from int, ok bool) {
	n := s.nodes[i]
	if s.how == wholeBlobs {
		return owner, int64(s.nodes[owner].got[l]) >= simLayer
	}
	var avoid []string
	at := owner
	for range 16 {
		if s.nodes[at].source[l] == fromNobody && int64(s.nodes[at].got[l]) < simLayer {
			s.ask(at, l, byAddress) // the question starts the owner's own fetch
		}
		verdict, to := s.nodes[at].giver.Ask(tree.Request{Blob: fmt.Sprint(l), Child: n.address, Avoid: avoid, Now: s.now})
		switch verdict {
		case tree.Give:
			if !s.comesFrom(at, i, l) {
				return at, true
			}
			// as the answer says which way the blob takes
			s.nodes[at].giver.Done(fmt.Sprint(l), n.address, false, s.now)
			if at == owner || len(avoid) == 3 {
				return 0, false
			}
			avoid = append(avoid, s.nodes[at].address)
			at = owner
			continue
		case tree.Busy:
			return 0, false
		case tree.Pass:
		}
		next := byAddress[to]
		if s.isDead(next, s.now) {
			avoid = append(avoid, to)
			n.avoid[next] = true
			if len(avoid) > 3 {
				return 0, false
			}
			next = owner
		}
		at = next
	}
	return 0, false
}

// comesFrom reports whether what a node gets of a layer comes from another one.
func (s *simulation) comesFrom(at, other, l int) bool {
	for at >= 0 && at != other {
		if int64(s.nodes[at].got[l]) >= simLayer {
			return false
		}
		at = s.nodes[at].source[l]
	}
	return at == other
}

// transfer moves bytes for one step.
func (s *simulation) transfer() {
	for _, n := range s.nodes {
		n.out, n.in = 0, 0
	}
	active := func(i, l int) (from int, ok bool) {
		n := s.nodes[i]
		from = n.source[l]
		if s.isDead(i, s.now) || from == fromNobody || int64(n.got[l]) >= simLayer {
			return 0, false
		}
		return from, from == fromUpstream || s.nodes[from].got[l] > n.got[l]
	}
	for i := range s.nodes {
		for l := range simLayers {
			if from, ok := active(i, l); ok {
				s.nodes[i].in++
				if from >= 0 {
					s.nodes[from].out++
				}
			}
		}
	}
	type move struct {
		to, layer int
		bytes     float64
	}
	var moves []move
	gave := make(map[int]float64)
	for i, n := range s.nodes {
		for l := range simLayers {
			from, ok := active(i, l)
			if !ok {
				continue
			}
			bytes := n.speed * simStep.Seconds() / float64(n.in)
			if from >= 0 {
				bytes = min(bytes, s.nodes[from].speed*simStep.Seconds()/float64(s.nodes[from].out), s.nodes[from].got[l]-n.got[l])
				gave[from] += bytes
			}
			moves = append(moves, move{i, l, min(bytes, float64(simLayer)-n.got[l])})
		}
	}
	for _, m := range moves {
		n := s.nodes[m.to]
		n.got[m.layer] += m.bytes
		from := n.source[m.layer]
		if from == fromUpstream {
			s.upstream += m.bytes
		} else if int64(n.got[m.layer]) >= simLayer {
			s.nodes[from].giver.Done(fmt.Sprint(m.layer), n.address, true, s.now)
		}
	}
	for _, bytes := range gave {
		s.most = max(s.most, bytes/simStep.Seconds())
	}
}

// images returns how many times the image came from the upstream.
func (s *simulation) images() float64 { return s.upstream / float64(simLayers*simLayer) }

func TestSimulatedZoneFetchesOnceAndInTime(t *testing.T) {
	alone := float64(simLayers*simLayer) / simSpeed // seconds
	for _, n := range []int{1000, 5000} {
		if testing.Short() && n > 1000 {
			continue
		}
		t.Run(fmt.Sprintf("%d nodes", n), func(t *testing.T) {
			s := newSimulation(n, inTrees, 1, 0.05, 0)
			took := s.run()
			t.Logf("in trees: %.3f images from the upstream, the last node done after %v, %.1f times one transfer", s.images(), took, took.Seconds()/alone)
			// Where an owner dies at the beginning, a node that gave the blob to the one which takes the owner's
			// place becomes a second root: most of one layer in 8 comes again.
			if most := map[int]float64{1000: 1.05, 5000: 1.125}[n]; s.images() > most {
				t.Errorf("%.3f images came from the upstream, want %.3f at most", s.images(), most)
			}
			if took.Seconds() > 2.5*alone {
				t.Errorf("the last node was done after %v", took)
			}
			if n == 1000 {
				slow := newSimulation(n, inTrees, 1, 0.05, 0.1)
				took := slow.run()
				t.Logf("one node in ten at a tenth of the speed: %.3f images, the last of the others done after %v, of all after %v", slow.images(), slow.fast, took)
			}
			if s.most > simSpeed*1.001 {
				t.Errorf("a node gave %.0f bytes a second", s.most)
			}
			if again := newSimulation(n, inTrees, 1, 0.05, 0); again.run() != took || again.upstream != s.upstream {
				t.Error("the same seed gives another result")
			}
			for how, name := range map[sharing]string{byOwners: "owners without trees", wholeBlobs: "whole blobs", notAtAll: "each for itself"} {
				if n > 1000 {
					break // it is the same with more nodes, and takes long
				}
				other := newSimulation(n, how, 1, 0.05, 0)
				took := other.run()
				t.Logf("%s: %.3f images from the upstream, the last node done after %v", name, other.images(), took)
			}
		})
	}
}
