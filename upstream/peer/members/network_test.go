package members

import (
	"errors"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"
)

// network connects nodes in memory. What is sent to an address on which nobody is, or between two sides of
// a cut, is lost.
type network struct {
	mu   sync.Mutex // guards what follows
	at   map[string]*transport
	side map[string]int // of an address; a connection crosses no sides

	packets, streams atomic.Int64 // bytes that were sent
}

func newNetwork() *network {
	return &network{at: make(map[string]*transport), side: make(map[string]int)}
}

// transport is a node's end of a network. It is a memberlist.Transport.
type transport struct {
	net     *network
	addr    netip.AddrPort
	packets chan *memberlist.Packet
	streams chan net.Conn
}

// join puts a node on an address, in place of whoever was there.
func (n *network) join(addr netip.AddrPort) *transport {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.killLocked(addr.String())
	t := &transport{net: n, addr: addr, packets: make(chan *memberlist.Packet, 1024), streams: make(chan net.Conn, 64)}
	n.at[addr.String()] = t
	return t
}

// cut puts some addresses on another side than all others. None heals the network.
func (n *network) cut(some ...netip.AddrPort) {
	n.mu.Lock()
	defer n.mu.Unlock()
	clear(n.side)
	for _, at := range some {
		n.side[at.String()] = 1
	}
}

// kill takes the node from an address: it neither hears nor is heard any more.
func (n *network) kill(addr netip.AddrPort) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.killLocked(addr.String())
}

func (n *network) killLocked(addr string) {
	t := n.at[addr]
	if t == nil {
		return
	}
	delete(n.at, addr)
	for {
		select {
		case conn := <-t.streams: // nobody reads it
			_ = conn.Close()
		default:
			return
		}
	}
}

// findLocked returns the node at an address, or nil if t does not reach it.
func (n *network) findLocked(t *transport, to string) *transport {
	from := t.addr.String()
	if n.at[from] != t || n.side[from] != n.side[to] {
		return nil
	}
	return n.at[to]
}

func (t *transport) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	return t.addr.Addr().AsSlice(), int(t.addr.Port()), nil
}

func (t *transport) WriteTo(b []byte, addr string) (time.Time, error) {
	t.net.packets.Add(int64(len(b)))
	t.net.mu.Lock()
	defer t.net.mu.Unlock()
	if to := t.net.findLocked(t, addr); to != nil {
		select {
		case to.packets <- &memberlist.Packet{Buf: append([]byte(nil), b...), From: net.UDPAddrFromAddrPort(t.addr), Timestamp: time.Now()}:
		default: // as the kernel does
		}
	}
	return time.Now(), nil
}

func (t *transport) PacketCh() <-chan *memberlist.Packet { return t.packets }

func (t *transport) DialTimeout(addr string, _ time.Duration) (net.Conn, error) {
	t.net.mu.Lock()
	defer t.net.mu.Unlock()
	to := t.net.findLocked(t, addr)
	if to == nil {
		return nil, errors.New("nobody is there")
	}
	ours, theirs := net.Pipe()
	select {
	case to.streams <- counted{theirs, &t.net.streams}:
		return counted{ours, &t.net.streams}, nil
	default:
		return nil, errors.New("nobody accepts")
	}
}

// counted counts what is written.
type counted struct {
	net.Conn
	sent *atomic.Int64
}

func (c counted) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.sent.Add(int64(n))
	return n, err
}

func (t *transport) StreamCh() <-chan net.Conn { return t.streams }

func (t *transport) Shutdown() error {
	t.net.mu.Lock()
	defer t.net.mu.Unlock()
	if t.net.at[t.addr.String()] == t {
		t.net.killLocked(t.addr.String())
	}
	return nil
}
