package probe

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"maps"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"slices"
	"sync"
	"time"
)

// Connection is the result of a connection and one request.
type Connection struct {
	// Proxy is the host:port of the proxy, or "".
	Proxy string
	// Addresses are those of the target's name, or of the proxy's. There are none if
	// the name is an address.
	Addresses []string
	// Remote is the address that was connected to.
	Remote string
	// TLS is the protocol's version, such as "TLS 1.3".
	TLS string
	// Mute are the addresses of the name servers that did not answer. The name may
	// have been looked up at another one.
	Mute []string
	// WantsTLS says that plain HTTP was answered by a server that expects TLS.
	WantsTLS bool
	// Status and Date are the answer's. Date is zero if it had none.
	Status int
	Date   time.Time
	// Here is the time on this machine when Date came.
	Here time.Time

	// Stage is the stage that failed, and Err its error. They are "" and nil if the
	// target answered, with whatever status.
	Stage Stage
	Err   error
	// Took is the duration of each stage that succeeded.
	Took map[Stage]time.Duration
}

// Stage is a part of connecting.
type Stage string

// The stages, in their order.
const (
	StageDNS    Stage = "dns"
	StageTCP    Stage = "tcp"
	StageTLS    Stage = "tls"
	StageAnswer Stage = "answer"
)

// ProxyOf returns the host:port of the proxy for a URL, or "". The rest of the
// proxy's URL may hold a password. by is as http.Transport.Proxy, and may be nil.
func ProxyOf(by func(*http.Request) (*url.URL, error), to *url.URL) string {
	if by == nil {
		return ""
	}
	u, err := by(&http.Request{URL: to})
	if err != nil || u == nil {
		return ""
	}
	return u.Host
}

// Connect sends one GET, and records the stages. send is such as
// http.Transport.RoundTrip; proxy is for Connection.Proxy.
func Connect(ctx context.Context, send func(*http.Request) (*http.Response, error), to *url.URL, proxy string) Connection {
	w := &witness{Connection: Connection{Proxy: proxy, Took: make(map[Stage]time.Duration)}, reached: StageDNS, behindTCP: StageAnswer}
	if to.Scheme == "https" {
		w.behindTCP = StageTLS
	}
	req, err := http.NewRequestWithContext(httptrace.WithClientTrace(ctx, w.trace()), http.MethodGet, to.String(), http.NoBody)
	if err != nil {
		return Connection{Stage: StageDNS, Err: err}
	}
	req.Header.Set("User-Agent", "larder")
	w.begin = time.Now()
	resp, err := send(req)
	w.mu.Lock()
	defer w.mu.Unlock()
	c := w.Connection
	c.Took = maps.Clone(c.Took)
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		var wrapped *url.Error
		if errors.As(err, &wrapped) {
			err = wrapped.Err // without the request, which the caller knows
		}
		c.Stage, c.Err = w.reached, err
		return c
	}
	defer resp.Body.Close()
	c.Took[StageAnswer] = time.Since(w.begin)
	c.Status, c.Here = resp.StatusCode, time.Now()
	c.WantsTLS = to.Scheme == "http" && wantsTLS(resp)
	if at, err := http.ParseTime(resp.Header.Get("Date")); err == nil {
		c.Date = at
	}
	return c
}

// wantsTLS reports the answer of a server that expects TLS to plain HTTP. Go's says
// "Client sent an HTTP request to an HTTPS server.", nginx's "The plain HTTP request was
// sent to HTTPS port", and Apache's "speaking plain HTTP to an SSL-enabled server port".
func wantsTLS(resp *http.Response) bool {
	if resp.StatusCode != http.StatusBadRequest {
		return false
	}
	const enough = 2 << 10 // bytes
	text, err := io.ReadAll(io.LimitReader(resp.Body, enough))
	return err == nil && (bytes.Contains(text, []byte("HTTPS")) || bytes.Contains(text, []byte("SSL-enabled")))
}

// witness follows a connection. Its hooks run on goroutines of net/http, some of
// which may outlive the request.
type witness struct {
	behindTCP Stage

	mu sync.Mutex // guards what follows
	Connection
	reached Stage
	begin   time.Time // of the stage that runs
}

func (w *witness) trace() *httptrace.ClientTrace {
	return &httptrace.ClientTrace{
		DNSDone: func(info httptrace.DNSDoneInfo) {
			if info.Err != nil {
				return
			}
			w.pass(StageDNS, StageTCP, func() {
				for _, addr := range info.Addrs {
					w.Addresses = append(w.Addresses, addr.String())
				}
				slices.Sort(w.Addresses)
			})
		},
		ConnectStart: func(string, string) { w.pass("", StageTCP, func() {}) },
		ConnectDone: func(_, addr string, err error) {
			if err == nil {
				w.pass(StageTCP, w.behindTCP, func() { w.Remote = addr })
			}
		},
		TLSHandshakeStart: func() { w.pass("", StageTLS, func() {}) },
		TLSHandshakeDone: func(state tls.ConnectionState, err error) {
			if err == nil {
				w.pass(StageTLS, StageAnswer, func() { w.TLS = tls.VersionName(state.Version) })
			}
		},
	}
}

// pass records the stage that is done, unless it is "", and the next one.
func (w *witness) pass(done, next Stage, note func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if done != "" {
		w.Took[done] = time.Since(w.begin)
	}
	w.begin, w.reached = time.Now(), next
	note()
}
