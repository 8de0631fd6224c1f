package load

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// conn is a TCP connection, with TLS on top of it for some hosts, that is closed when its context ends.
type conn struct {
	net.Conn
	raw    syscall.RawConn // nil with TLS
	in     *bufio.Reader
	unbind func() bool // stops watching the context
}

// dial connects to addr, over TLS if trust is not nil. Like containerd it resumes no sessions.
func dial(ctx context.Context, addr string, trust *x509.CertPool) (*conn, error) {
	tcp, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	raw, err := tcp.(*net.TCPConn).SyscallConn()
	if err != nil {
		return nil, errors.Join(err, tcp.Close())
	}
	c := &conn{Conn: tcp, raw: raw}
	if trust != nil {
		host, _, _ := net.SplitHostPort(addr) // it was dialled
		c.Conn, c.raw = tls.Client(tcp, &tls.Config{RootCAs: trust, ServerName: host}), nil
	}
	c.in = bufio.NewReader(c.Conn)
	c.unbind = context.AfterFunc(ctx, func() { _ = tcp.Close() })
	return c, nil
}

func (c *conn) close() {
	c.unbind()
	_ = c.Close() // every request has been written
}

// discard drops the next n bytes, in the kernel where they are not yet read, and returns how many it dropped.
func (c *conn) discard(n int64) (int64, error) {
	buffered, err := c.in.Discard(int(min(n, int64(c.in.Buffered()))))
	if err != nil {
		return int64(buffered), err
	}
	if c.raw == nil {
		read, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, io.LimitReader(c.Conn, n-int64(buffered)), make([]byte, copyBuffer))
		if err == nil && read < n-int64(buffered) {
			err = io.ErrUnexpectedEOF
		}
		return int64(buffered) + read, err
	}
	dropped, err := c.truncate(n - int64(buffered))
	return int64(buffered) + dropped, err
}

// truncateStep is how many bytes the kernel is asked to drop at a time.
const truncateStep = 1 << 20

// truncate has the kernel drop the next n bytes without copying them (MSG_TRUNC, tcp(7)).
func (c *conn) truncate(n int64) (dropped int64, err error) {
	unused := make([]byte, min(n, truncateStep)) // the kernel needs its length and writes nothing into it
	for dropped < n {
		var m int
		var failed error
		err := c.raw.Read(func(fd uintptr) bool {
			m, _, failed = unix.Recvfrom(int(fd), unused[:min(n-dropped, truncateStep)], unix.MSG_TRUNC)
			return !errors.Is(failed, unix.EAGAIN)
		})
		switch {
		case err != nil:
			return dropped, err
		case errors.Is(failed, unix.EINTR):
		case failed != nil:
			return dropped, failed
		case m == 0:
			return dropped, io.ErrUnexpectedEOF
		}
		dropped += int64(max(m, 0))
	}
	return dropped, nil
}
