package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// client is one goroutine's connections, one to each host, kept between its requests. It speaks HTTP/1.1 by itself: to
// send, to time the first byte, and to drop bodies in the kernel takes so little of the machine that what is measured is
// the server.
type client struct {
	ctx   context.Context
	links map[string]*link
	led   map[string]*server // where the redirect of a path led
}

// accept is what containerd accepts as its type of a manifest.
const accept = "application/vnd.docker.distribution.manifest.v2+json, application/vnd.docker.distribution.manifest.list.v2+json, " +
	"application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, */*"

// link is a connection.
type link struct {
	net.Conn
	raw  syscall.RawConn
	in   *bufio.Reader
	hung func() bool // stops the watch on the context
}

func newClient(ctx context.Context) *client {
	return &client{ctx: ctx, links: make(map[string]*link), led: make(map[string]*server)}
}

// close hangs up.
func (c *client) close() {
	for _, l := range c.links {
		l.hung()
		_ = l.Close() // nothing is left to be sent
	}
	clear(c.links)
}

func (c *client) dial(host string) (*link, error) {
	if l := c.links[host]; l != nil {
		return l, nil
	}
	conn, err := new(net.Dialer).DialContext(c.ctx, "tcp", host)
	if err != nil {
		return nil, err
	}
	raw, err := conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	l := &link{Conn: conn, raw: raw, in: bufio.NewReader(conn)}
	l.hung = context.AfterFunc(c.ctx, func() { _ = conn.Close() })
	c.links[host] = l
	return l, nil
}

func (c *client) drop(host string) {
	if l := c.links[host]; l != nil {
		l.hung()
		_ = l.Close() // nothing is left to be sent
		delete(c.links, host)
	}
}

// question is a request.
type question struct {
	method  string // GET if empty
	path    string
	from, n int64 // the range to ask for; the whole if n is 0
}

// answer is what came of it. The body must be read before the next question.
type answer struct {
	*http.Response
	client *client
	host   string
	path   string        // of host, where a redirect led elsewhere than was asked
	first  time.Duration // from the question to the first byte of the body, or of the headers where it has none
}

// ask puts a question to a server and follows redirects. Any answer but 200 and 206 is an error.
func (c *client) ask(s *server, q question) (*answer, error) {
	began := time.Now()
	host, path, token := s.addr, q.path+s.query, s.token
	for range 5 {
		a, err := c.exchange(host, path, token, q)
		if err != nil {
			return nil, fmt.Errorf("%s: %s: %w", s.name, q.path, err)
		}
		if location := a.Header.Get("Location"); location != "" && a.StatusCode/100 == 3 {
			if _, err := a.drain(); err != nil {
				return nil, err
			}
			to, err := url.Parse(location)
			if err != nil {
				return nil, err
			}
			host, path, token = to.Host, to.RequestURI(), ""
			continue
		}
		if a.StatusCode != http.StatusOK && a.StatusCode != http.StatusPartialContent {
			said, _ := io.ReadAll(io.LimitReader(a.Body, 300))
			c.drop(host)
			return nil, fmt.Errorf("%s: %s: %s %s", s.name, q.path, a.Status, said)
		}
		if q.method != http.MethodHead && a.ContentLength != 0 {
			if _, err := c.links[host].in.Peek(1); err != nil {
				return nil, fmt.Errorf("%s: %s: %w", s.name, q.path, err)
			}
		}
		a.first = time.Since(began)
		if host != s.addr {
			a.path = path
		}
		return a, nil
	}
	return nil, fmt.Errorf("%s: %s: too many redirects", s.name, q.path)
}

// askWhereItLed is ask for a path that is asked for again and again: it goes straight to where it was redirected.
func (c *client) askWhereItLed(s *server, q question) (*answer, error) {
	if to := c.led[q.path]; to != nil {
		q.path = to.query
		return c.ask(&server{contender: s.contender, place: to.place}, q)
	}
	a, err := c.ask(s, q)
	if err == nil && a.path != "" {
		c.led[q.path] = &server{place: place{addr: a.host}, query: a.path}
	}
	return a, err
}

func (c *client) exchange(host, path, token string, q question) (*answer, error) {
	l, err := c.dial(host)
	if err != nil {
		return nil, err
	}
	method := q.method
	if method == "" {
		method = http.MethodGet
	}
	out := make([]byte, 0, 512)
	out = fmt.Appendf(out, "%s %s HTTP/1.1\r\nHost: %s\r\nAccept: %s\r\n", method, path, host, accept)
	if token != "" {
		out = fmt.Appendf(out, "Authorization: %s\r\n", token)
	}
	if q.n > 0 {
		out = fmt.Appendf(out, "Range: bytes=%d-%d\r\n", q.from, q.from+q.n-1)
	}
	if _, err := l.Write(append(out, "\r\n"...)); err != nil {
		c.drop(host)
		return nil, err
	}
	resp, err := http.ReadResponse(l.in, &http.Request{Method: method}) //nolint:bodyclose // it is read by drain or copy, and is the connection
	if err != nil {
		c.drop(host)
		return nil, err
	}
	return &answer{Response: resp, client: c, host: host}, nil
}

// end takes back the connection of an answer whose body was read.
func (a *answer) end() {
	if a.Close {
		a.client.drop(a.host)
	}
}

// drain drops the body, and returns how long it was. The kernel throws the bytes away where it can.
func (a *answer) drain() (int64, error) {
	defer a.end()
	n := a.ContentLength
	if a.Request.Method == http.MethodHead {
		return 0, nil
	}
	if n < 0 {
		return io.Copy(io.Discard, a.Body)
	}
	l := a.client.links[a.host]
	held, err := l.in.Discard(int(min(n, int64(l.in.Buffered()))))
	if err != nil {
		return int64(held), err
	}
	dropped, err := l.discard(n - int64(held))
	return int64(held) + dropped, err
}

// dropStep is how many bytes the kernel is asked to drop at a time.
const dropStep = mib

// discard has the kernel drop the next n bytes of the connection: it does not copy them (MSG_TRUNC, tcp(7)).
func (l *link) discard(n int64) (dropped int64, err error) {
	never := make([]byte, min(n, dropStep)) // its length counts; nothing is written to it
	for dropped < n {
		var m int
		var failed error
		err := l.raw.Read(func(fd uintptr) bool {
			m, _, failed = unix.Recvfrom(int(fd), never[:min(n-dropped, dropStep)], unix.MSG_TRUNC)
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

// copy reads the body into w, and returns how long it was.
func (a *answer) copy(w io.Writer, buf []byte) (int64, error) {
	defer a.end()
	return io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{a.Body}, buf)
}
