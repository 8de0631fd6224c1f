package conns

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// conn is a connection whose writes fail when the client takes nothing for the listener's
// Stall, and at the latest after twice that time. A slow client is not cut.
type conn struct {
	net.Conn
	listener *Listener
	client   netip.Prefix
	// deadlined is whether the server has set a deadline for writes, which then counts.
	deadlined atomic.Bool
	close     func() error // the first call closes the connection and gives its place back

	// waiting is since when the connection has had no request; 0 while it has one. The
	// listener's mu guards it.
	waiting time.Time
}

func newConn(c net.Conn, l *Listener, client netip.Prefix) *conn {
	wrapped := &conn{Conn: c, listener: l, client: client, waiting: time.Now()}
	wrapped.close = sync.OnceValue(func() error {
		l.forget(wrapped)
		return c.Close()
	})
	return wrapped
}

// Close closes the connection. It may be called more than once.
func (c *conn) Close() error { return c.close() }

// CloseWrite is what [net/http] uses to end a connection without a reset.
func (c *conn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}

// SetWriteDeadline replaces the deadline by progress; a zero time brings that back.
func (c *conn) SetWriteDeadline(t time.Time) error {
	c.deadlined.Store(!t.IsZero())
	return c.Conn.SetWriteDeadline(t)
}

// SetDeadline is SetReadDeadline and SetWriteDeadline.
func (c *conn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

// Write is [io.Writer].
func (c *conn) Write(p []byte) (sent int, err error) {
	for {
		if err := c.expectProgress(); err != nil {
			return sent, err
		}
		n, err := c.Conn.Write(p[sent:])
		sent += n
		if err == nil || !c.goesOn(int64(n), err) {
			return sent, err
		}
	}
}

// ReadFrom is [io.ReaderFrom]. Of a part of a file, which net/http gives it, the kernel does
// the copying.
func (c *conn) ReadFrom(src io.Reader) (sent int64, err error) {
	limited, _ := src.(*io.LimitedReader)
	to, canCopy := c.Conn.(io.ReaderFrom)
	if limited == nil || !canCopy {
		return io.Copy(writerOnly{c}, src)
	}
	file, isFile := limited.R.(*os.File)
	if !isFile {
		return io.Copy(writerOnly{c}, src)
	}
	return c.sendFile(to, file, limited)
}

// sendFile sends part of a file. When the time is up although the client took something, it
// goes on where the client is: what else was read from the file is read again.
func (c *conn) sendFile(to io.ReaderFrom, file *os.File, part *io.LimitedReader) (sent int64, err error) {
	want := part.N
	for {
		if err := c.expectProgress(); err != nil {
			return sent, err
		}
		n, err := to.ReadFrom(part)
		sent += n
		if err == nil || !c.goesOn(n, err) {
			return sent, err
		}
		if read := want - part.N; read != sent {
			if _, err := file.Seek(sent-read, io.SeekCurrent); err != nil {
				return sent, err
			}
			part.N = want - sent
		}
	}
}

// expectProgress begins a period in which the client must take something.
func (c *conn) expectProgress() error {
	if c.deadlined.Load() {
		return nil
	}
	return c.Conn.SetWriteDeadline(time.Now().Add(c.listener.bounds.Stall))
}

// goesOn reports whether a write that failed with err, after n bytes, is to go on.
func (c *conn) goesOn(n int64, err error) bool {
	if c.deadlined.Load() || !errors.Is(err, os.ErrDeadlineExceeded) {
		return false
	}
	if n == 0 {
		c.listener.noteStall(c)
	}
	return n > 0
}

// writerOnly hides ReadFrom from io.Copy.
type writerOnly struct{ io.Writer }
