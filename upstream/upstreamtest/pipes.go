package upstreamtest

import (
	"context"
	"net"
	"sync"
)

// Pipes is a listener whose connections stay in the process, so that a bubble's clock goes on while they are idle. Its
// methods may be called concurrently.
type Pipes struct {
	conns  chan net.Conn
	closed chan struct{}
	close  func()
}

// NewPipes returns a listener that accepts what Dial and Connect bring, until it is closed.
func NewPipes() *Pipes {
	p := &Pipes{conns: make(chan net.Conn), closed: make(chan struct{})}
	p.close = sync.OnceFunc(func() { close(p.closed) })
	return p
}

// Accept waits for the next connection.
func (p *Pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

// Close ends Accept, Dial and Connect.
func (p *Pipes) Close() error { p.close(); return nil }

// Addr is an address that nobody listens on.
func (p *Pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipes", Net: "pipe"} }

// Dial connects to the listener, whatever the address.
func (p *Pipes) Dial(ctx context.Context, _, _ string) (net.Conn, error) {
	theirs, ours := net.Pipe()
	if err := p.Connect(ctx, theirs); err != nil {
		return nil, err
	}
	return ours, nil
}

// Connect has the listener accept the server's end of a connection.
func (p *Pipes) Connect(ctx context.Context, server net.Conn) error {
	select {
	case p.conns <- server:
		return nil
	case <-p.closed:
		return net.ErrClosed
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
