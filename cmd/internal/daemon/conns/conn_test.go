package conns

// White-box: net.TCPConn decides by itself when a write is partial. The tests give a conn
// one whose writes end as they say.

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.opentelemetry.io/otel/metric/noop"
)

// client is a connection whose client takes some bytes at a time, and none at the end.
type client struct {
	net.Conn
	takes    []int // how much of each write is taken before its deadline
	overread int   // how much more ReadFrom reads from its source than it writes
	got      bytes.Buffer
	expected int // deadlines for writes that were set
}

func (c *client) SetWriteDeadline(time.Time) error { c.expected++; return nil }
func (c *client) Close() error                     { return nil }
func (c *client) RemoteAddr() net.Addr             { return &net.TCPAddr{IP: net.IPv4(10, 0, 0, 7), Port: 1} }

func (c *client) Write(p []byte) (int, error) {
	if len(c.takes) == 0 {
		return 0, os.ErrDeadlineExceeded
	}
	n := min(c.takes[0], len(p))
	c.takes = c.takes[1:]
	c.got.Write(p[:n])
	if n < len(p) {
		return n, os.ErrDeadlineExceeded
	}
	return n, nil
}

func (c *client) ReadFrom(src io.Reader) (int64, error) {
	limited := src.(*io.LimitedReader)
	take := 0
	if len(c.takes) > 0 {
		take, c.takes = c.takes[0], c.takes[1:]
	}
	p, err := io.ReadAll(io.LimitReader(limited, int64(take+c.overread)))
	if err != nil {
		return 0, err
	}
	n := min(take, len(p))
	c.got.Write(p[:n])
	if n == len(p) && limited.N == 0 {
		return int64(n), nil
	}
	return int64(n), os.ErrDeadlineExceeded
}

// connect returns a conn to a client.
func connect(t *testing.T, to *client) *conn {
	t.Helper()
	l, err := Limit(nil, "clients", Bounds{All: 2, PerClient: 2, Stall: time.Minute}, noop.NewMeterProvider(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return newConn(to, l, netip.Prefix{})
}

func TestSlowClientGetsAllOfAWrite(t *testing.T) {
	to := &client{takes: []int{3, 1, 100}}
	n, err := connect(t, to).Write([]byte("all of it"))
	if err != nil || n != 9 || to.got.String() != "all of it" || to.expected != 3 {
		t.Errorf("%d, %v, %q with %d deadlines; want all of it with 3", n, err, &to.got, to.expected)
	}
}

func TestClientThatTakesNothingIsCut(t *testing.T) {
	to := &client{takes: []int{3}}
	n, err := connect(t, to).Write([]byte("all of it"))
	if !errors.Is(err, os.ErrDeadlineExceeded) || n != 3 {
		t.Errorf("%d, %v; want 3 bytes and the deadline", n, err)
	}
}

func TestSlowClientGetsAllOfAFile(t *testing.T) {
	content := []byte("0123456789abcdefghij")
	path := filepath.Join(t.TempDir(), "blob")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, overread := range map[string]int{"sendfile": 0, "a copy through memory": 4} {
		t.Run(name, func(t *testing.T) {
			f, err := os.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if _, err := f.Seek(2, io.SeekStart); err != nil {
				t.Fatal(err)
			}
			to := &client{takes: []int{1, 7, 2, 100}, overread: overread}
			n, err := connect(t, to).ReadFrom(io.LimitReader(f, 15))
			if err != nil || n != 15 || to.got.String() != string(content[2:17]) {
				t.Errorf("%d, %v, %q; want %q", n, err, &to.got, content[2:17])
			}
		})
	}
}

func TestClientThatTakesNothingOfAFileIsCut(t *testing.T) {
	path := filepath.Join(t.TempDir(), "blob")
	if err := os.WriteFile(path, make([]byte, 100), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	n, err := connect(t, &client{takes: []int{40}}).ReadFrom(io.LimitReader(f, 100))
	if !errors.Is(err, os.ErrDeadlineExceeded) || n != 40 {
		t.Errorf("%d, %v; want 40 bytes and the deadline", n, err)
	}
}

// The stream of the status page has deadlines of its own.
func TestDeadlineOfAHandlerCounts(t *testing.T) {
	to := &client{takes: []int{3, 100}}
	c := connect(t, to)
	if err := c.SetWriteDeadline(time.Now()); err != nil {
		t.Fatal(err)
	}
	if n, err := c.Write([]byte("all of it")); !errors.Is(err, os.ErrDeadlineExceeded) || n != 3 || to.expected != 1 {
		t.Errorf("%d, %v with %d deadlines; want the end at the handler's", n, err, to.expected)
	}
	if err := c.SetWriteDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write([]byte("more")); err != nil || to.expected != 3 {
		t.Errorf("%v with %d deadlines after the handler's has ended", err, to.expected)
	}
}
