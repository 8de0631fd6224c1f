package share

import (
	"cmp"
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/larder-registry/larder/config"
	"github.com/larder-registry/larder/upstream/peer"
	"github.com/larder-registry/larder/upstream/peer/members"
	"github.com/larder-registry/larder/upstream/peer/ring"
)

const (
	// maxChecked bounds the nodes that one check greets: those of a large zone are alike.
	maxChecked = 16
	// greetTimeout bounds each greeting: the nodes of a cluster are near each other.
	greetTimeout = 2 * time.Second
)

// A Check is what greeting some nodes has shown.
type Check struct {
	// Self is the address by which others reach this node; "" if it does not run.
	Self string `json:"self,omitempty"`
	Zone string `json:"zone,omitempty"`
	// Version is this node's.
	Version string `json:"version,omitempty"`
	// Known is how many other nodes gossip tells of, and OfZone how many of these are in this node's zone.
	Known  int `json:"known"`
	OfZone int `json:"ofZone"`
	// Unresolved are the entries of peers.join that lead to no address, with the errors.
	Unresolved []string `json:"unresolved,omitempty"`
	// Greeted are the nodes that were greeted: some of those that gossip tells of, and those of peers.join.
	Greeted []Greeting `json:"greeted"`
}

// A Greeting is what became of greeting a node.
type Greeting struct {
	Address string `json:"address"`
	// Member reports whether gossip tells of the node.
	Member  bool    `json:"member"`
	Zone    string  `json:"zone,omitempty"`
	Version string  `json:"version,omitempty"`
	Problem Problem `json:"problem,omitempty"`
	Error   string  `json:"error,omitempty"`
	// Ahead is how many seconds the node's clock is ahead of this one's.
	Ahead float64 `json:"ahead,omitempty"`
}

// A Problem is what is wrong between this node and another one.
type Problem string

// The problems, the worst first.
const (
	Unreachable Problem = "unreachable"  // it cannot be connected to
	Stranger    Problem = "key"          // it has none of this node's keys
	Foreign     Problem = "release"      // it does not speak this release's protocol
	Silent      Problem = "no answer"    // anything else that keeps it from answering
	Unknown     Problem = "unknown here" // gossip does not tell of it
	UnknownTo   Problem = "unknown to"   // it does not know this node
	Rights      Problem = "rights"       // it may read something else than this node
	Clock       Problem = "clock"        // its clock is wrong, or this one's
)

// maxAhead is how far clocks may be apart. The age of tags and of first sights is told in seconds.
const maxAhead = 5 * time.Second

// Check greets some of the nodes that this one knows or is to join.
func (s *Sharing) Check(ctx context.Context) Check {
	self := s.members.Self()
	c := Check{Self: self.Content.String(), Zone: self.Zone, Version: self.Version}
	known := make(map[string]members.Node)
	contents := make(map[netip.AddrPort]string) // by their gossip
	var near, far []string
	for _, n := range s.members.All() {
		address := n.Content.String()
		contents[n.Gossip] = address
		if n.Self {
			continue
		}
		known[address] = n
		if n.Zone == self.Zone {
			near = append(near, address)
		} else {
			far = append(far, address)
		}
	}
	c.Known, c.OfZone = len(known), len(near)
	shuffle(near)
	shuffle(far)
	toJoin := c.resolve(ctx, s.join, contents)
	asked := first(slices.Concat(toJoin, near, far), c.Self)
	c.Greeted = greetAll(ctx, (&ring.Dialer{Ring: s.ring}).Dial, c.Self, asked)
	for i := range c.Greeted {
		g := &c.Greeted[i]
		n, isMember := known[g.Address]
		g.Member, g.Zone = isMember, n.Zone
		switch {
		case g.Problem != "" && (g.Problem != UnknownTo || isMember):
		case !isMember:
			g.Problem = Unknown
		case n.Rights != 0 && self.Rights != 0 && n.Rights != self.Rights:
			g.Problem = Rights
		}
	}
	return c
}

// CheckConfigured greets the nodes that the configuration names, for a daemon that does not run. The error says why that
// is impossible.
func CheckConfigured(ctx context.Context, cfg config.Peers) (Check, error) {
	keys, err := ring.ReadKeys(cfg.KeyFile)
	if err != nil {
		return Check{}, err
	}
	c := Check{Zone: cfg.Zone}
	asked := first(c.resolve(ctx, cfg.Join, nil), "")
	c.Greeted = greetAll(ctx, (&ring.Dialer{Ring: ring.New(keys...)}).Dial, "", asked)
	for i := range c.Greeted {
		if c.Greeted[i].Problem == UnknownTo { // it does not run
			c.Greeted[i].Problem = ""
		}
	}
	return c, nil
}

func shuffle(some []string) {
	rand.Shuffle(len(some), func(i, j int) { some[i], some[j] = some[j], some[i] })
}

// first returns the first addresses, each once, without this node's own.
func first(all []string, self string) (some []string) {
	for _, address := range all {
		if len(some) < maxChecked && address != self && !slices.Contains(some, address) {
			some = append(some, address)
		}
	}
	return some
}

// resolve returns where the nodes of peers.join give content. If contents does not have that, it is the port before that
// of their gossip.
func (c *Check) resolve(ctx context.Context, join []string, contents map[netip.AddrPort]string) (all []string) {
	for _, name := range join {
		host, number, err := net.SplitHostPort(strings.TrimPrefix(name, "dns:"))
		port, notNumber := strconv.ParseUint(number, 10, 16)
		if err := errors.Join(err, notNumber); err != nil {
			c.Unresolved = append(c.Unresolved, name+": "+err.Error())
			continue
		}
		bounded, cancel := context.WithTimeout(ctx, greetTimeout)
		found, err := net.DefaultResolver.LookupNetIP(bounded, "ip", host)
		cancel()
		if err != nil {
			c.Unresolved = append(c.Unresolved, name+": "+err.Error())
		}
		for _, addr := range found {
			gossip := netip.AddrPortFrom(addr.Unmap(), uint16(port))
			content := netip.AddrPortFrom(gossip.Addr(), gossip.Port()-1).String()
			all = append(all, cmp.Or(contents[gossip], content))
		}
	}
	shuffle(all)
	return all[:min(len(all), maxChecked/2)]
}

// greetAll greets nodes, all at once.
func greetAll(ctx context.Context, dial func(context.Context, string, string) (net.Conn, error), self string, nodes []string) []Greeting {
	all := make([]Greeting, len(nodes))
	var greeting sync.WaitGroup
	for i, node := range nodes {
		greeting.Go(func() {
			bounded, cancel := context.WithTimeout(ctx, greetTimeout)
			defer cancel()
			hello, err := peer.Greet(bounded, dial, self, node)
			all[i] = Greeting{Address: node, Version: hello.Version, Ahead: hello.Ahead.Seconds(), Problem: problemOf(hello, err)}
			if err != nil {
				all[i].Error = err.Error()
			}
		})
	}
	greeting.Wait()
	return all
}

func problemOf(hello peer.Hello, err error) Problem {
	switch {
	case errors.Is(err, peer.ErrUnreachable):
		return Unreachable
	case errors.Is(err, peer.ErrNoKey):
		return Stranger
	case errors.Is(err, peer.ErrRelease):
		return Foreign
	case err != nil:
		return Silent
	case hello.Ahead.Abs() > maxAhead:
		return Clock
	case !hello.Knows:
		return UnknownTo
	}
	return ""
}
