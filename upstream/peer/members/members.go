package members

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/larder-registry/larder/upstream/peer/ring"
)

// label keeps other programs that gossip on the same addresses apart.
const label = "larder/1"

// Options are the settings of [Members]. Ring, Bind and Content are required.
type Options struct {
	// Ring has the keys by which gossip is encrypted.
	Ring *ring.Ring
	// Bind is where the node listens for gossip, over TCP and UDP. Port 0 means any.
	Bind netip.AddrPort
	// Content is where the node serves content, as others reach it. They reach its gossip at the
	// same address.
	Content netip.AddrPort
	// Join are the addresses or names of nodes to join: host:port, of gossip. A name may have many
	// addresses. They are looked up anew each time.
	Join []string
	// Zone is the node's, of at most MaxZone bytes. Longer ones are cut.
	Zone string
	// FindZone finds the zone if it has no name here. It is called in the background, and the node joins others when it
	// has returned. Nil means that the node has no zone then.
	FindZone func(ctx context.Context) string
	// Version and Rights are told to others: see [Node].
	Version string
	Rights  uint64
	// Changed is called when the nodes have changed, once or more, from any goroutine. It must
	// not block. Nil means that nobody wants to know.
	Changed func()
	// Lookup returns the addresses of a name. Nil means those that the system knows.
	Lookup func(ctx context.Context, host string) ([]netip.Addr, error)
	// Log is where what happens is reported. Nil means slog.Default().
	Log *slog.Logger

	// Transport replaces the network, for tests and simulations. Nil means TCP and UDP.
	Transport memberlist.Transport
}

// Members are the nodes of the cluster, as this one knows them. It is safe for concurrent use.
type Members struct {
	log     *slog.Logger
	list    *memberlist.Memberlist
	keyring *memberlist.Keyring
	ring    *ring.Ring
	changed func()
	joiner  *joiner

	self    atomic.Pointer[Node]
	end     context.CancelFunc
	running sync.WaitGroup
	close   func() error

	mu    sync.Mutex // guards what follows
	nodes map[string]Node
	all   []Node // those of nodes, sorted by Content; not changed once it is here
}

// Open takes part in the cluster from then on. It does not wait for others: a node that finds none is
// alone, and goes on looking.
func Open(opts Options) (*Members, error) {
	if opts.Log == nil {
		opts.Log = slog.Default()
	}
	if opts.Changed == nil {
		opts.Changed = func() {}
	}
	if opts.Lookup == nil {
		opts.Lookup = func(ctx context.Context, host string) ([]netip.Addr, error) {
			return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		}
	}
	m := &Members{log: opts.Log, ring: opts.Ring, changed: opts.Changed, nodes: make(map[string]Node)}
	var name [8]byte
	_, _ = rand.Read(name[:]) // never fails
	m.self.Store(&Node{
		Name: hex.EncodeToString(name[:]), Content: opts.Content, Zone: cutZone(opts.Zone),
		Version: opts.Version, Rights: opts.Rights, Self: true,
	})
	keys := opts.Ring.Gossip()
	m.joiner = newJoiner(opts, m)
	var err error
	if m.keyring, err = memberlist.NewKeyring(keys, keys[0]); err != nil {
		return nil, fmt.Errorf("join the peers: %w", err)
	}
	if m.list, err = memberlist.Create(m.config(opts)); err != nil {
		return nil, fmt.Errorf("join the peers: %w", err)
	}
	ctx, end := context.WithCancel(context.Background())
	m.end = end
	m.close = sync.OnceValue(m.leave)
	m.running.Go(func() {
		if opts.Zone == "" && opts.FindZone != nil {
			if zone := cutZone(opts.FindZone(ctx)); zone != "" {
				m.tell("its zone", func(self *Node) { self.Zone = zone })
			}
		}
		m.joiner.run(ctx)
	})
	return m, nil
}

func cutZone(zone string) string { return zone[:min(len(zone), MaxZone)] }

// config is memberlist's.
func (m *Members) config(opts Options) *memberlist.Config {
	c := memberlist.DefaultLANConfig()
	c.Name = m.self.Load().Name
	c.BindAddr, c.BindPort = opts.Bind.Addr().String(), int(opts.Bind.Port())
	c.AdvertiseAddr, c.AdvertisePort = opts.Content.Addr().String(), int(opts.Bind.Port())
	c.Transport = opts.Transport
	c.Label = label
	c.Keyring = m.keyring
	c.Delegate, c.Events = delegate{m}, delegate{m}
	c.TCPTimeout = joinTimeout
	c.LogOutput, c.Logger = nil, logger(opts.Log)
	return c
}

// All returns the nodes that are alive as far as this one knows, itself among them, sorted by
// their addresses. The caller must not change them.
func (m *Members) All() []Node {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.all
}

// Self returns this node.
func (m *Members) Self() Node { return *m.self.Load() }

// GossipAddr is where this node takes part in gossip.
func (m *Members) GossipAddr() netip.AddrPort {
	for _, n := range m.All() {
		if n.Self {
			return n.Gossip
		}
	}
	return netip.AddrPort{} // it has left
}

// Rekey uses the ring's keys, which have changed. While some nodes have the new keys only and others
// the old ones, they must have one in common: see [ring.Ring].
func (m *Members) Rekey() error {
	keys := m.ring.Gossip()
	for _, key := range keys {
		if err := m.keyring.AddKey(key); err != nil {
			return fmt.Errorf("use the cluster's new keys: %w", err)
		}
	}
	if err := m.keyring.UseKey(keys[0]); err != nil {
		return fmt.Errorf("use the cluster's new keys: %w", err)
	}
	for _, old := range slices.Clone(m.keyring.GetKeys()) {
		if slices.ContainsFunc(keys, func(key []byte) bool { return slices.Equal(key, old) }) {
			continue
		}
		if err := m.keyring.RemoveKey(old); err != nil {
			return fmt.Errorf("forget the cluster's old keys: %w", err)
		}
	}
	return nil
}

// leaveTimeout bounds how long others are told that this node drains or leaves.
const leaveTimeout = 2 * time.Second

// Drain tells the others that this node is about to stop, so that they do not ask it for what they
// could have of others. It waits for that for some seconds at most.
func (m *Members) Drain() {
	m.tell("that it is about to stop", func(self *Node) { self.Draining = true })
}

// tell changes what this node says of itself, and tells the others.
func (m *Members) tell(what string, change func(self *Node)) {
	for {
		before := m.self.Load()
		self := *before
		change(&self)
		if m.self.CompareAndSwap(before, &self) {
			break
		}
	}
	if err := m.list.UpdateNode(leaveTimeout); err != nil {
		m.log.Debug("peers may not know everything about this node", "news", what, "error", err)
	}
	m.changed()
}

// Close leaves the cluster. It may be called twice.
func (m *Members) Close() error { return m.close() }

func (m *Members) leave() error {
	m.end()
	m.running.Wait()
	if err := m.list.Leave(leaveTimeout); err != nil {
		m.log.Debug("peers may not know that this node has left", "error", err)
	}
	if err := m.list.Shutdown(); err != nil {
		return fmt.Errorf("leave the peers: %w", err)
	}
	return nil
}

// put notes a node that has joined or changed.
func (m *Members) put(n *memberlist.Node) {
	node, err := decode(n.Meta)
	if err != nil {
		m.log.Warn("a peer is left alone: its release may be another one", "peer", n.Address(), "error", err)
		m.remove(n)
		return
	}
	node.Name, node.Gossip, node.Self = n.Name, gossipOf(n), n.Name == m.self.Load().Name
	m.mu.Lock()
	m.nodes[n.Name] = node
	m.sortLocked()
	m.mu.Unlock()
	m.changed()
}

func (m *Members) remove(n *memberlist.Node) {
	m.mu.Lock()
	delete(m.nodes, n.Name)
	m.sortLocked()
	m.mu.Unlock()
	m.changed()
}

// sortLocked makes the list of nodes anew. Of two nodes with the same address, one is a process that
// has ended, and memberlist will find out which: it is not this one.
func (m *Members) sortLocked() {
	self := m.self.Load()
	all := make([]Node, 0, len(m.nodes))
	for _, n := range m.nodes {
		if n.Self || n.Content != self.Content {
			all = append(all, n)
		}
	}
	slices.SortFunc(all, func(a, b Node) int { return cmp.Or(a.Content.Compare(b.Content), cmp.Compare(a.Name, b.Name)) })
	m.all = slices.CompactFunc(all, func(a, b Node) bool { return a.Content == b.Content })
}

func gossipOf(n *memberlist.Node) netip.AddrPort {
	addr, _ := netip.AddrFromSlice(n.Addr)
	return netip.AddrPortFrom(addr.Unmap(), n.Port)
}

// delegate is what memberlist calls. Its methods are not those of Members, since nobody else may
// call them.
type delegate struct{ m *Members }

// NodeMeta is for memberlist.Delegate. It never has more bytes than fit.
func (d delegate) NodeMeta(limit int) []byte {
	meta := d.m.self.Load().encode()
	if len(meta) > limit {
		d.m.log.Error("this node cannot tell its peers about itself", "error", errors.New("its metadata is too long"), "bytes", len(meta))
		return nil
	}
	return meta
}

// NotifyMsg is for memberlist.Delegate.
func (delegate) NotifyMsg([]byte) {}

// GetBroadcasts is for memberlist.Delegate.
func (delegate) GetBroadcasts(int, int) [][]byte { return nil }

// LocalState is for memberlist.Delegate.
func (delegate) LocalState(bool) []byte { return nil }

// MergeRemoteState is for memberlist.Delegate.
func (delegate) MergeRemoteState([]byte, bool) {}

// NotifyJoin is for memberlist.EventDelegate.
func (d delegate) NotifyJoin(n *memberlist.Node) { d.m.put(n) }

// NotifyUpdate is for memberlist.EventDelegate.
func (d delegate) NotifyUpdate(n *memberlist.Node) { d.m.put(n) }

// NotifyLeave is for memberlist.EventDelegate.
func (d delegate) NotifyLeave(n *memberlist.Node) {
	d.m.remove(n)
	d.m.joiner.lost(gossipOf(n))
}
