package load

import (
	"context"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// A Target is a server that clients ask.
type Target struct {
	Name          string // in errors
	Addr          string // host:port
	Query         string // added to each path, such as "?ns=docker.io"
	Authorization string // header; none if empty
	// Trust is the CA of a target that speaks TLS. Redirects of a target lead to hosts that speak what it speaks.
	Trust *x509.CertPool
}

// A Request is one request to a target.
type Request struct {
	Method    string // GET if empty
	Path      string
	From, Len int64 // range to ask for, in bytes; everything if Len is 0
	Open      bool  // ask for everything from From on; the client then takes Len bytes
}

// A Client has one connection to each host and keeps it between requests. It writes and reads HTTP/1.1 itself: to send
// requests, to time the first byte and to drop bodies in the kernel then takes so little CPU time that the server is
// what is measured. It is for one goroutine.
type Client struct {
	ctx       context.Context
	conns     map[string]*conn
	redirects map[string]location // by path
}

// location is where a redirect led.
type location struct{ host, path string }

// NewClient returns a client whose requests end with ctx. It must be closed.
func NewClient(ctx context.Context) *Client {
	return &Client{ctx: ctx, conns: make(map[string]*conn), redirects: make(map[string]location)}
}

// Close closes the client's connections.
func (c *Client) Close() {
	for _, conn := range c.conns {
		conn.close()
	}
	clear(c.conns)
}

// Do sends a request and follows redirects, without the target's Authorization. A status other than 200 and 206 is an
// error. The response's body must be read before the next request.
func (c *Client) Do(t Target, r Request) (*Response, error) {
	began := time.Now()
	at, authorization := location{t.Addr, r.Path + t.Query}, t.Authorization
	for range 5 {
		resp, err := c.exchange(at, t.Trust, authorization, r)
		if err != nil {
			return nil, fmt.Errorf("%s: %s: %w", t.Name, r.Path, err)
		}
		if to := resp.Header.Get("Location"); to != "" && resp.StatusCode/100 == 3 {
			if _, err := resp.Discard(); err != nil {
				return nil, err
			}
			u, err := url.Parse(to)
			if err != nil {
				return nil, err
			}
			at, authorization = location{u.Host, u.RequestURI()}, ""
			continue
		}
		if resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusPartialContent {
			message, _ := io.ReadAll(io.LimitReader(resp.Body, 300))
			c.drop(at.host)
			return nil, fmt.Errorf("%s: %s: %s %s", t.Name, r.Path, resp.Status, message)
		}
		if r.Method != http.MethodHead && resp.ContentLength != 0 {
			if _, err := c.conns[at.host].in.Peek(1); err != nil {
				return nil, fmt.Errorf("%s: %s: %w", t.Name, r.Path, err)
			}
		}
		resp.FirstByte = time.Since(began)
		return resp, nil
	}
	return nil, fmt.Errorf("%s: %s: too many redirects", t.Name, r.Path)
}

// DoRedirected is Do for a path that is asked for again and again: after the first request it asks where that was
// redirected to.
func (c *Client) DoRedirected(t Target, r Request) (*Response, error) {
	if to, ok := c.redirects[r.Path]; ok {
		r.Path = to.path
		return c.Do(Target{Name: t.Name, Addr: to.host, Trust: t.Trust}, r)
	}
	resp, err := c.Do(t, r)
	if err == nil && resp.at.host != t.Addr {
		c.redirects[r.Path] = resp.at
	}
	return resp, err
}

// Get reads a manifest or a blob to its end and returns its size. A size other than that of want is an error. With
// verify, so is another digest.
func (c *Client) Get(t Target, path string, want ocispec.Descriptor, verify bool) (n int64, err error) {
	resp, err := c.Do(t, Request{Path: path})
	if err != nil {
		return 0, err
	}
	matches := true
	if verify {
		verifier := want.Digest.Verifier()
		n, err = resp.Copy(verifier)
		matches = verifier.Verified()
	} else {
		n, err = resp.Discard()
	}
	switch {
	case err != nil:
		return n, fmt.Errorf("%s: %s after %d bytes: %w", t.Name, path, n, err)
	case n != want.Size || !matches:
		return n, fmt.Errorf("%s: %s: %d bytes are not the %d expected", t.Name, path, n, want.Size)
	}
	return n, nil
}

// accept is the Accept header of containerd's requests for manifests.
const accept = "application/vnd.docker.distribution.manifest.v2+json, application/vnd.docker.distribution.manifest.list.v2+json, " +
	"application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, */*"

// exchange writes a request and reads the response's header.
func (c *Client) exchange(at location, trust *x509.CertPool, authorization string, r Request) (*Response, error) {
	conn, err := c.conn(at.host, trust)
	if err != nil {
		return nil, err
	}
	method := r.Method
	if method == "" {
		method = http.MethodGet
	}
	out := make([]byte, 0, 512)
	out = fmt.Appendf(out, "%s %s HTTP/1.1\r\nHost: %s\r\nAccept: %s\r\n", method, at.path, at.host, accept)
	if authorization != "" {
		out = fmt.Appendf(out, "Authorization: %s\r\n", authorization)
	}
	switch {
	case r.Open:
		out = fmt.Appendf(out, "Range: bytes=%d-\r\n", r.From)
	case r.Len > 0:
		out = fmt.Appendf(out, "Range: bytes=%d-%d\r\n", r.From, r.From+r.Len-1)
	}
	if _, err := conn.Write(append(out, "\r\n"...)); err != nil {
		c.drop(at.host)
		return nil, err
	}
	resp, err := http.ReadResponse(conn.in, &http.Request{Method: method}) //nolint:bodyclose // Discard and Copy read it; it is the connection
	if err != nil {
		c.drop(at.host)
		return nil, err
	}
	return &Response{Response: resp, client: c, at: at}, nil
}

func (c *Client) conn(host string, trust *x509.CertPool) (*conn, error) {
	if conn := c.conns[host]; conn != nil {
		return conn, nil
	}
	conn, err := dial(c.ctx, host, trust)
	if err != nil {
		return nil, err
	}
	c.conns[host] = conn
	return conn, nil
}

func (c *Client) drop(host string) {
	if conn := c.conns[host]; conn != nil {
		conn.close()
		delete(c.conns, host)
	}
}

// A Response is the response to a request. Its body is read with Discard or Copy.
type Response struct {
	*http.Response
	FirstByte time.Duration // from the request to the first byte of the body, or to the header if there is no body

	client *Client
	at     location
}

// Discard drops the body, in the kernel where its length is known, and returns its length.
func (r *Response) Discard() (int64, error) {
	defer r.end()
	switch {
	case r.Request.Method == http.MethodHead:
		return 0, nil
	case r.ContentLength < 0:
		return io.Copy(io.Discard, r.Body)
	}
	return r.client.conns[r.at.host].discard(r.ContentLength)
}

// DiscardSome drops the next n bytes of the body, and hangs up if there are more.
func (r *Response) DiscardSome(n int64) (int64, error) {
	if n >= r.ContentLength {
		return r.Discard()
	}
	dropped, err := r.client.conns[r.at.host].discard(n)
	r.client.drop(r.at.host)
	return dropped, err
}

// copyBuffer is the size in which bodies are copied, in bytes.
const copyBuffer = 256 << 10

// Copy copies the body to w and returns its length.
func (r *Response) Copy(w io.Writer) (int64, error) {
	defer r.end()
	// Without ReadFrom and WriteTo, which would use buffers of another size.
	return io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{r.Body}, make([]byte, copyBuffer))
}

// end closes the connection if the response says so.
func (r *Response) end() {
	if r.Close {
		r.client.drop(r.at.host)
	}
}
