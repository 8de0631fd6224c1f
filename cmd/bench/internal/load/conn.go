package load

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// conn is a TCP connection that is closed when its context ends.
type conn struct {
	net.Conn
	raw    syscall.RawConn
	in     *bufio.Reader
	unbind func() bool // stops watching the context
}

func dial(ctx context.Context, addr string) (*conn, error) {
	tcp, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	raw, err := tcp.(*net.TCPConn).SyscallConn()
	if err != nil {
		return nil, errors.Join(err, tcp.Close())
	}
	c := &conn{Conn: tcp, raw: raw, in: bufio.NewReader(tcp)}
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
