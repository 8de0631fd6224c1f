package share

import (
	"cmp"
	"slices"
	"time"
)

// Bounds of a glance, so that one of a cluster of thousands of nodes is as small as one of a dozen.
const (
	glanceNodes    = 12
	glanceZones    = 6
	glanceVersions = 4
	glanceAvoided  = 6
)

// A Glance is what the status page shows of the cluster: sums, and the nodes with which this one exchanges the most.
type Glance struct {
	Self  string `json:"self"`
	Zone  string `json:"zone,omitempty"`
	Nodes int    `json:"nodes"` // all, this one among them
	Given int64  `json:"given"` // bytes of content, since the start
	Taken int64  `json:"taken"`

	Zones    []GlanceGroup `json:"zones"`    // this node's own first, then the largest
	Versions []GlanceGroup `json:"versions"` // the most frequent first
	Top      []GlanceNode  `json:"top"`      // those that are avoided first, then those that gave and took the most
	More     int           `json:"more"`     // nodes that are not in Top, without this one
	Avoided  []GlanceAvoid `json:"avoided"`  // those without a node, as it is gone, too
}

// A GlanceGroup is the nodes of a zone, or of a version. The last group may be that of all others.
type GlanceGroup struct {
	Name   string `json:"name"`
	Others int    `json:"others,omitempty"` // how many names the group stands for, if it is not of one
	Nodes  int    `json:"nodes"`
	Given  int64  `json:"given"`
	Taken  int64  `json:"taken"`
}

// A GlanceNode is another node.
type GlanceNode struct {
	Address  string `json:"address"`
	Zone     string `json:"zone,omitempty"`
	Version  string `json:"version,omitempty"`
	Draining bool   `json:"draining,omitempty"`
	Avoided  bool   `json:"avoided,omitempty"`
	Given    int64  `json:"given"`
	Taken    int64  `json:"taken"`
}

// A GlanceAvoid is why a node is not asked.
type GlanceAvoid struct {
	Address string    `json:"address"`
	Why     string    `json:"why"`
	Until   time.Time `json:"until"`
	Lied    bool      `json:"lied,omitempty"`
	Blobs   int       `json:"blobs,omitempty"` // how many blobs it is not asked for; 0 means all
}

// Glance sums a status up.
func (st Status) Glance() Glance {
	g := Glance{Nodes: len(st.Nodes), Given: st.Given, Taken: st.Taken, Top: []GlanceNode{}, Avoided: avoidedAtAGlance(st.Avoided)}
	isAvoided := make(map[string]bool)
	for _, a := range st.Avoided {
		isAvoided[a.Address] = isAvoided[a.Address] || a.Blob == ""
	}
	zones, versions := make(map[string]*GlanceGroup), make(map[string]*GlanceGroup)
	for _, n := range st.Nodes {
		count(zones, n.Zone, n)
		count(versions, n.Version, n)
		if n.Self {
			g.Self, g.Zone = n.Address, n.Zone
			continue
		}
		g.Top = append(g.Top, GlanceNode{
			Address: n.Address, Zone: n.Zone, Version: n.Version, Draining: n.Draining, Avoided: isAvoided[n.Address],
			Given: n.Given, Taken: n.Taken,
		})
	}
	g.Zones, g.Versions = largest(zones, g.Zone, glanceZones), largest(versions, "", glanceVersions)
	slices.SortFunc(g.Top, func(a, b GlanceNode) int {
		if a.Avoided != b.Avoided {
			return map[bool]int{true: -1, false: 1}[a.Avoided]
		}
		return cmp.Or(cmp.Compare(b.Given+b.Taken, a.Given+a.Taken), cmp.Compare(a.Address, b.Address))
	})
	g.More = max(len(g.Top)-glanceNodes, 0)
	g.Top = g.Top[:len(g.Top)-g.More]
	return g
}

// count adds a node to its group.
func count(groups map[string]*GlanceGroup, name string, n Node) {
	group := groups[name]
	if group == nil {
		group = &GlanceGroup{Name: name}
		groups[name] = group
	}
	group.Nodes++
	group.Given += n.Given
	group.Taken += n.Taken
}

// largest returns the group with a name, if there is one, then the largest, and one for the rest: some groups at most.
func largest(groups map[string]*GlanceGroup, own string, most int) []GlanceGroup {
	all := make([]GlanceGroup, 0, len(groups))
	for _, group := range groups {
		all = append(all, *group)
	}
	slices.SortFunc(all, func(a, b GlanceGroup) int {
		if (a.Name == own) != (b.Name == own) {
			return map[bool]int{true: -1, false: 1}[a.Name == own]
		}
		return cmp.Or(cmp.Compare(b.Nodes, a.Nodes), cmp.Compare(a.Name, b.Name))
	})
	if len(all) <= most {
		return all
	}
	rest := GlanceGroup{Others: len(all) - most + 1}
	for _, group := range all[most-1:] {
		rest.Nodes += group.Nodes
		rest.Given += group.Given
		rest.Taken += group.Taken
	}
	return append(all[:most-1], rest)
}

// avoidedAtAGlance has one entry for a node: why it is not asked for anything, or for some blobs.
func avoidedAtAGlance(all []Avoided) []GlanceAvoid {
	byNode := make(map[string]*GlanceAvoid)
	var blobs []Avoided
	for _, a := range all {
		if a.Blob != "" {
			blobs = append(blobs, a)
			continue
		}
		byNode[a.Address] = &GlanceAvoid{Address: a.Address, Why: a.Why, Until: a.Until, Lied: a.Lied}
	}
	for _, a := range blobs {
		known := byNode[a.Address]
		switch {
		case known == nil:
			byNode[a.Address] = &GlanceAvoid{Address: a.Address, Why: a.Why, Until: a.Until, Lied: a.Lied, Blobs: 1}
		case known.Blobs > 0:
			known.Blobs++
			known.Lied = known.Lied || a.Lied
		}
	}
	some := make([]GlanceAvoid, 0, len(byNode))
	for _, a := range byNode {
		some = append(some, *a)
	}
	slices.SortFunc(some, func(a, b GlanceAvoid) int {
		return cmp.Or(cmp.Compare(min(a.Blobs, 1), min(b.Blobs, 1)), b.Until.Compare(a.Until), cmp.Compare(a.Address, b.Address))
	})
	return some[:min(len(some), glanceAvoided)]
}
