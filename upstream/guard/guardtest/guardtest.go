// Package guardtest has what tests of connections need: a listener that counts them,
// and a resolver that leads to any address.
package guardtest

import (
	"context"
	"net"
	"sync/atomic"
	"testing"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/larder-registry/larder/upstream/dial"
)

// Doorbell is a listener on loopback that counts connections.
type Doorbell struct {
	net.Listener
	came    atomic.Int64
	arrived chan struct{} // a token for each
}

// NewDoorbell returns a listener that the end of the test closes.
func NewDoorbell(t *testing.T) *Doorbell {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := &Doorbell{Listener: l, arrived: make(chan struct{}, 100)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_ = conn.Close() // nothing was left to write
			b.came.Add(1)
			b.arrived <- struct{}{}
		}
	}()
	t.Cleanup(func() {
		_ = l.Close() // nothing was left to write
		<-done
	})
	return b
}

// Port returns the port of the listener.
func (b *Doorbell) Port(t *testing.T) string {
	t.Helper()
	_, port, err := net.SplitHostPort(b.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// Wait waits for a connection.
func (b *Doorbell) Wait() { <-b.arrived }

// WantNobody checks that no connection came. It makes one of its own, which comes
// after all others.
func (b *Doorbell) WantNobody(t *testing.T) {
	t.Helper()
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", b.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.Close() // nothing was left to write
	<-b.arrived
	if n := b.came.Load(); n != 1 {
		t.Errorf("%d connections came besides the test's own", n-1)
	}
}

// Resolver returns one that answers every question for an IPv4 address with addr.
func Resolver(t *testing.T, addr [4]byte) *dial.Resolver {
	t.Helper()
	return CountingResolver(t, addr, new(atomic.Int64))
}

// CountingResolver is Resolver, and adds to n for each way that it opens to its server:
// at least one for each look-up of a name.
func CountingResolver(t *testing.T, addr [4]byte, n *atomic.Int64) *dial.Resolver {
	t.Helper()
	server, err := (&net.ListenConfig{}).ListenPacket(t.Context(), "udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 4096)
		for {
			n, from, err := server.ReadFrom(buf)
			if err != nil {
				return
			}
			var msg dnsmessage.Message
			if msg.Unpack(buf[:n]) != nil {
				continue
			}
			msg.Response, msg.Additionals = true, nil
			for _, q := range msg.Questions {
				if q.Type == dnsmessage.TypeA {
					msg.Answers = append(msg.Answers, dnsmessage.Resource{
						Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class, TTL: 1},
						Body:   &dnsmessage.AResource{A: addr},
					})
				}
			}
			if answer, err := msg.Pack(); err == nil {
				_, _ = server.WriteTo(answer, from)
			}
		}
	}()
	t.Cleanup(func() {
		_ = server.Close() // nothing was left to write
		<-done
	})
	return dial.ResolverOf(&net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		n.Add(1)
		return (&net.Dialer{}).DialContext(ctx, "udp", server.LocalAddr().String())
	}})
}
