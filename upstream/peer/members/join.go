package members

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	// joinTimeout bounds a connection of memberlist: the nodes of a cluster are near each other.
	joinTimeout = 2 * time.Second
	// firstJoin is how soon a node looks again that has found nobody, and joinEvery how often all look:
	// a cluster that was cut in two is one again within a minute, with lookups and connections that
	// wait for their timeouts.
	firstJoin = 500 * time.Millisecond
	joinEvery = 15 * time.Second
	// joinAtOnce bounds the nodes that are joined in one round: one is enough for two clusters to become
	// one, and others make up for those that are gone.
	joinAtOnce = 3
	// lostFor is how long a node that was lost is tried again, and maxLost how many of them.
	lostFor = time.Hour
	maxLost = 1024
)

// joiner joins nodes that memberlist does not know, or has lost.
type joiner struct {
	members *Members
	join    []string
	lookup  func(ctx context.Context, host string) ([]netip.Addr, error)
	log     *slog.Logger

	said map[string]bool // what was logged at level info since this node is alone; of run alone

	mu    sync.Mutex // guards what follows
	since map[netip.AddrPort]time.Time
}

func newJoiner(opts Options, m *Members) *joiner {
	return &joiner{members: m, join: opts.Join, lookup: opts.Lookup, log: opts.Log, said: make(map[string]bool), since: make(map[netip.AddrPort]time.Time)}
}

// run looks for others until ctx ends: more often while this node is alone.
func (j *joiner) run(ctx context.Context) {
	pause := firstJoin
	for {
		j.round(ctx)
		if len(j.members.All()) > 1 {
			pause = joinEvery
		}
		select {
		case <-time.After(pause/2 + rand.N(pause)): // so that a thousand nodes do not look at once
		case <-ctx.Done():
			return
		}
		pause = min(2*pause, joinEvery)
	}
}

// round joins some nodes that are not members.
func (j *joiner) round(ctx context.Context) {
	var strangers []netip.AddrPort
	all, lost := j.addresses(ctx), j.lostNodes()
	for _, some := range [][]netip.AddrPort{all, lost} {
		some = j.withoutMembers(some)
		rand.Shuffle(len(some), func(a, b int) { some[a], some[b] = some[b], some[a] })
		strangers = append(strangers, some[:min(len(some), joinAtOnce)]...)
	}
	for _, at := range strangers {
		if ctx.Err() != nil {
			return
		}
		if n, err := j.members.list.Join([]string{at.String()}); n == 0 && err != nil {
			j.note("a peer cannot be joined", "peer", at, "error", oneLine(err))
		}
	}
	if len(j.members.All()) > 1 {
		clear(j.said)
	}
}

// note logs why others are not found: at level info if this node is alone, and once until it is not.
func (j *joiner) note(text string, args ...any) {
	level := slog.LevelDebug
	if len(j.members.All()) <= 1 && !j.said[text] {
		level, j.said[text] = slog.LevelInfo, true
	}
	j.log.Log(context.Background(), level, text, args...)
}

// addresses looks up what the configuration names.
func (j *joiner) addresses(ctx context.Context) []netip.AddrPort {
	var all []netip.AddrPort
	for _, name := range j.join {
		host, number, err := net.SplitHostPort(strings.TrimPrefix(name, "dns:"))
		port, notNumber := strconv.ParseUint(number, 10, 16)
		if err != nil || notNumber != nil {
			j.note("a peer cannot be joined", "peer", name, "error", "it is no host:port")
			continue
		}
		if addr, err := netip.ParseAddr(host); err == nil {
			all = append(all, netip.AddrPortFrom(addr.Unmap(), uint16(port)))
			continue
		}
		bounded, cancel := context.WithTimeout(ctx, joinTimeout)
		found, err := j.lookup(bounded, host)
		cancel()
		if err != nil {
			j.note("the names of peers cannot be looked up", "peer", name, "error", err)
		}
		for _, addr := range found {
			all = append(all, netip.AddrPortFrom(addr.Unmap(), uint16(port)))
		}
	}
	return all
}

// withoutMembers leaves out the addresses of members, this node's own among them.
func (j *joiner) withoutMembers(some []netip.AddrPort) []netip.AddrPort {
	known := map[netip.AddrPort]bool{j.members.GossipAddr(): true}
	for _, n := range j.members.All() {
		known[n.Gossip] = true
	}
	return slices.DeleteFunc(some, func(at netip.AddrPort) bool { return known[at] })
}

// lost notes a node that has failed or left.
func (j *joiner) lost(at netip.AddrPort) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(j.since) < maxLost {
		j.since[at] = time.Now()
	}
}

// lostNodes returns where nodes were that are lost, and forgets those of long ago.
func (j *joiner) lostNodes() []netip.AddrPort {
	j.mu.Lock()
	defer j.mu.Unlock()
	var all []netip.AddrPort
	for at, since := range j.since {
		if time.Since(since) > lostFor {
			delete(j.since, at)
			continue
		}
		all = append(all, at)
	}
	return all
}

// oneLine returns the text of memberlist's error, which is a list on many lines.
func oneLine(err error) string { return strings.Join(strings.Fields(err.Error()), " ") }
