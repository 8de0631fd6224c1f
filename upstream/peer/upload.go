package peer

import (
	"context"
	"net"

	"golang.org/x/time/rate"
)

// uploadChunk is how many bytes are sent at a time where what is sent is bounded.
const uploadChunk = 64 << 10

// LimitUpload returns a listener whose connections together send at most some bytes a second. 0 means any
// number.
func LimitUpload(l net.Listener, perSecond int64) net.Listener {
	if perSecond <= 0 {
		return l
	}
	return limited{l, rate.NewLimiter(rate.Limit(perSecond), uploadChunk)}
}

type limited struct {
	net.Listener
	limit *rate.Limiter
}

// Accept is for net.Listener.
func (l limited) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	return &limitedConn{conn, ctx, cancel, l.limit}, nil
}

type limitedConn struct {
	net.Conn
	ctx    context.Context // ends with the connection
	cancel context.CancelFunc
	limit  *rate.Limiter
}

// Write sends a part when its turn has come, one connection after the other.
func (c *limitedConn) Write(p []byte) (n int, err error) {
	for len(p) > 0 && err == nil {
		part := p[:min(len(p), uploadChunk)]
		if c.limit.WaitN(c.ctx, len(part)) != nil {
			return n, net.ErrClosed
		}
		var sent int
		sent, err = c.Conn.Write(part)
		n, p = n+sent, p[sent:]
	}
	return n, err
}

// Close is for net.Conn.
func (c *limitedConn) Close() error {
	c.cancel()
	return c.Conn.Close()
}
