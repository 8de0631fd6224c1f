package peer

import (
	"slices"
	"sync"
	"time"

	"github.com/larder-registry/larder/upstream/peer/members"
	"github.com/larder-registry/larder/upstream/peer/tree"
)

// maxOwners is how many nodes of a zone may be asked for a key before the upstream: the owner, and the one that takes
// its place. As many are asked of all other zones.
const maxOwners = 2

// maxRanked bounds how many nodes of all zones are looked at for owners.
const maxRanked = 16

// candidate is a node to ask.
type candidate struct {
	address string
	// have says that it is asked only for what it has, or is getting.
	have bool
}

// owners returns the nodes to ask for a key before the upstream, in order. They end before this node if it is the
// owner, or takes its place: it asks the upstream. An owner that drains is asked by its successor alone, for what it
// has. A node that must not ask the upstream, as it is offline, asks those that take its place: they may have the content.
//
// If nodes of all zones ask the upstreams once, the owner of a zone asks those of other zones that come before it.
func (p *Peers) owners(key string, hops int, offline bool, now time.Time) []candidate {
	known := p.places.of(p.cluster)
	var ask []candidate
	switch isOwner := hops > 0 && known.own.owns(key); {
	case isOwner:
		ask = p.leaving(key, known.own, now)
	case hops <= maxHops:
		ask = p.rank(key, known.own, offline, now)
	}
	if p.span && hops <= maxHops {
		ask = append(ask, p.abroad(key, known.all, offline, now)...)
	}
	return ask
}

// rank returns the owners of this node's zone that come before it.
func (p *Peers) rank(key string, own group, offline bool, now time.Time) (ask []candidate) {
	asked := 0
	for _, i := range tree.Owners(key, own.places, maxOwners+1) {
		switch n := own.nodes[i]; {
		case n.Self && offline:
		case n.Self:
			return append(ask, p.leaving(key, own, now)...)
		case asked == maxOwners:
			return ask
		case p.avoided.is(n.Content.String(), key, now):
		default:
			asked++
			ask = append(ask, candidate{n.Content.String(), offline})
		}
	}
	return ask
}

// leaving returns the nodes of this node's zone that drain, and owned a key before this one does.
func (p *Peers) leaving(key string, own group, now time.Time) (ask []candidate) {
	if len(own.draining) == 0 {
		return nil
	}
	nodes := slices.Concat(own.nodes, own.draining)
	for _, i := range tree.Owners(key, placesOf(nodes), maxOwners) {
		if n := nodes[i]; n.Self {
			return ask
		} else if n.Draining && !p.avoided.is(n.Content.String(), key, now) {
			ask = append(ask, candidate{n.Content.String(), true})
		}
	}
	return ask
}

// abroad returns owners in other zones, at most one of each, until it comes to one in this node's zone: so nodes of two
// zones never ask each other for the same key.
func (p *Peers) abroad(key string, g group, have bool, now time.Time) (ask []candidate) {
	zone := p.cluster.Self().Zone
	zones := []string{}
	for _, i := range tree.Owners(key, g.places, maxRanked) {
		switch n := g.nodes[i]; {
		case n.Zone == zone, len(ask) == maxOwners:
			return ask
		case slices.Contains(zones, n.Zone), p.avoided.is(n.Content.String(), key, now):
		default:
			zones = append(zones, n.Zone)
			ask = append(ask, candidate{n.Content.String(), have})
		}
	}
	return ask
}

// elsewhere returns the owners in other zones to ask for a key that the upstream cannot be had for. A node that was
// passed the question on asks none: the one that asked it does.
func (p *Peers) elsewhere(key string, hops int, now time.Time) []candidate {
	if hops > maxHops {
		return nil
	}
	return p.abroad(key, p.places.of(p.cluster).others, false, now)
}

// otherZone returns the zone of a node that is known to be in another one; otherwise "". Nodes of different zones get a
// blob in different trees, as those of one zone are passed on to each other.
func (p *Peers) otherZone(address string) string {
	zone, ok := p.places.of(p.cluster).zones[address]
	if !ok || zone == p.cluster.Self().Zone {
		return ""
	}
	return "@" + zone
}

// places remembers the nodes by their zones, until they change.
type places struct {
	mu   sync.Mutex // guards what follows
	seen []members.Node
	zone string
	now  *groups // not changed once it is here
}

// groups are the nodes of this node's zone, those of others, and all.
type groups struct {
	own, others, all group
	zones            map[string]string // by address
}

// group is some nodes that may own keys, and others that drain, this node perhaps among them.
type group struct {
	nodes    []members.Node
	places   []tree.Place
	draining []members.Node
}

// owns reports whether this node is one of those that others ask for a key.
func (g group) owns(key string) bool {
	return slices.ContainsFunc(tree.Owners(key, g.places, maxOwners), func(i int) bool { return g.nodes[i].Self })
}

// of returns the nodes as they are known now.
func (p *places) of(c Cluster) *groups {
	nodes, zone := c.All(), c.Self().Zone
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.now != nil && zone == p.zone && len(nodes) == len(p.seen) && (len(nodes) == 0 || &nodes[0] == &p.seen[0]) {
		return p.now
	}
	p.seen, p.zone, p.now = nodes, zone, &groups{zones: make(map[string]string, len(nodes))}
	for _, n := range nodes {
		p.now.zones[n.Content.String()] = n.Zone
		p.now.all.add(n)
		if n.Zone == zone {
			p.now.own.add(n)
		} else {
			p.now.others.add(n)
		}
	}
	return p.now
}

func (g *group) add(n members.Node) {
	if n.Draining {
		g.draining = append(g.draining, n)
		return
	}
	g.nodes = append(g.nodes, n)
	g.places = append(g.places, tree.PlaceOf(n.Content.String()))
}

func placesOf(nodes []members.Node) []tree.Place {
	all := make([]tree.Place, 0, len(nodes))
	for _, n := range nodes {
		all = append(all, tree.PlaceOf(n.Content.String()))
	}
	return all
}
