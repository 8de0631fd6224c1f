package main

import (
	"errors"
	"io"
	"net"
	"sync"
	"testing"
)

// relayed is added to the number of a node's address where others reach it through a relay.
const relayed = 100

// A relay is how other nodes reach one node, until it is cut: then nothing passes, and nobody is told.
type relay struct {
	mu      sync.Mutex // guards what follows
	passes  *sync.Cond // it is not cut any more, or ended
	cut     bool
	ended   bool
	closers []io.Closer
}

// relay puts a relay before a node that is added next.
func (f *fleet) relay(t *testing.T, node int) *relay {
	t.Helper()
	r := new(relay)
	r.passes = sync.NewCond(&r.mu)
	f.relays[node] = r
	var running sync.WaitGroup
	for _, port := range []int{portContent, portGossip} {
		l, err := new(net.ListenConfig).Listen(t.Context(), "tcp4", f.address(node+relayed, port))
		if err != nil {
			t.Fatal(err)
		}
		r.keep(l)
		running.Go(func() { r.streams(l, f.address(node, port), &running) })
	}
	packets, err := new(net.ListenConfig).ListenPacket(t.Context(), "udp4", f.address(node+relayed, portGossip))
	if err != nil {
		t.Fatal(err)
	}
	r.keep(packets)
	to, err := net.ResolveUDPAddr("udp4", f.address(node, portGossip))
	if err != nil {
		t.Fatal(err)
	}
	running.Go(func() { r.packets(packets, to) })
	t.Cleanup(func() {
		r.mu.Lock()
		r.ended = true
		r.passes.Broadcast()
		for _, c := range r.closers {
			_ = c.Close() // a connection may have ended before
		}
		r.mu.Unlock()
		running.Wait()
	})
	return r
}

// setCut cuts the relay, or mends it.
func (r *relay) setCut(cut bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cut = cut
	r.passes.Broadcast()
}

// wait returns when something may pass. It returns false at the end.
func (r *relay) wait() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for r.cut && !r.ended {
		r.passes.Wait()
	}
	return !r.ended
}

// drops reports whether a packet is lost.
func (r *relay) drops() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.cut
}

// keep closes a connection at the end. It returns false if that has come.
func (r *relay) keep(c io.Closer) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ended {
		_ = c.Close() // nobody uses it
		return false
	}
	r.closers = append(r.closers, c)
	return true
}

// streams passes connections on to the node.
func (r *relay) streams(l net.Listener, to string, running *sync.WaitGroup) {
	for {
		from, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil || !r.keep(from) {
			continue
		}
		running.Go(func() {
			defer from.Close()
			if !r.wait() {
				return
			}
			node, err := net.Dial("tcp4", to)
			if err != nil || !r.keep(node) {
				return
			}
			running.Go(func() { r.copy(from, node) })
			r.copy(node, from)
		})
	}
}

// copy passes on what one end sends, and that it has ended.
func (r *relay) copy(to, from net.Conn) {
	defer to.Close()
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		if !r.wait() {
			return
		}
		if n > 0 {
			if _, err := to.Write(buf[:n]); err != nil {
				_ = from.Close() // it has nobody to send to
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// packets passes gossip on. The node answers to the address that a packet names, and not through the relay.
func (r *relay) packets(from net.PacketConn, to *net.UDPAddr) {
	buf := make([]byte, 64<<10)
	for {
		n, _, err := from.ReadFrom(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err == nil && !r.drops() {
			_, _ = from.WriteTo(buf[:n], to) // packets may be lost
		}
	}
}
