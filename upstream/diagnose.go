package upstream

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/upstream/auth"
	"github.com/larder-registry/larder/upstream/guard"
	"github.com/larder-registry/larder/upstream/reply"
)

// This file and diagnose_aws.go are for "larder doctor": they take apart, step
// by step, what the methods of Registry do in one go, with the same connections
// and credentials. Nothing that they return is a secret.

// Connection is how it went to connect to a place, and to ask it something.
type Connection struct {
	// Proxy is by which host:port it went, or "".
	Proxy string
	// Addresses are what the name stands for: the place's, or the proxy's. None
	// where it is an address itself.
	Addresses []string
	// Remote is the address that was connected to.
	Remote string
	// TLS is the protocol's version, such as "TLS 1.3".
	TLS string
	// Status and Date are of the answer. Date is zero where it had none.
	Status int
	Date   time.Time
	// Here is the time on this machine when Date came.
	Here time.Time

	// Stage is what failed, and Err why. They are "" and nil where the place
	// answered, whatever it said.
	Stage Stage
	Err   error
	// Took is how long each stage took that succeeded.
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

// BaseURL is the URL of the registry, under which its /v2 is.
func (r *Registry) BaseURL() string { return r.endpoint.String() }

// Connect connects to the registry and asks for its /v2/, without credentials.
func (r *Registry) Connect(ctx context.Context) Connection {
	return connect(ctx, r.transport.RoundTrip, r.endpoint.JoinPath("v2", "/"), r.proxy(r.endpoint))
}

// ConnectTo connects to a place that the registry redirects to, as [Registry.Locate]
// tells it.
func (r *Registry) ConnectTo(ctx context.Context, place string) Connection {
	u, err := url.Parse(place)
	if err != nil {
		return Connection{Stage: StageDNS, Err: err}
	}
	return connect(ctx, r.transport.RoundTrip, u.JoinPath("/"), r.proxy(u))
}

// Proxy is the host:port of the proxy that the environment gives for requests to
// the registry, or "".
func (r *Registry) Proxy() string { return r.proxy(r.endpoint) }

func (r *Registry) proxy(to *url.URL) string { return proxyOf(r.transport.Proxy, to) }

// proxyOf is the host of a proxy alone: its URL may hold a password.
func proxyOf(by func(*http.Request) (*url.URL, error), to *url.URL) string {
	if by == nil {
		return ""
	}
	u, err := by(&http.Request{URL: to})
	if err != nil || u == nil {
		return ""
	}
	return u.Host
}

// connect makes one request, and notes how far it came.
func connect(ctx context.Context, send func(*http.Request) (*http.Response, error), to *url.URL, proxy string) Connection {
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
			err = wrapped.Err // it repeats what was asked
		}
		c.Stage, c.Err = w.reached, err
		return c
	}
	defer resp.Body.Close()
	c.Took[StageAnswer] = time.Since(w.begin)
	c.Status, c.Here = resp.StatusCode, time.Now()
	if at, err := http.ParseTime(resp.Header.Get("Date")); err == nil {
		c.Date = at
	}
	return c
}

// witness follows a connection. Its hooks run on goroutines of net/http, some
// of which may outlive the request.
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

// pass notes that a stage is behind us, unless it is "", and which one is next.
func (w *witness) pass(done, next Stage, note func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if done != "" {
		w.Took[done] = time.Since(w.begin)
	}
	w.begin, w.reached = time.Now(), next
	note()
}

// Account returns the login that is configured for the registry, if it is not
// ECR's API that gives one.
func (r *Registry) Account(ctx context.Context) (auth.Account, error) {
	challenged, ok := r.auth.(*auth.Challenged)
	if !ok {
		return auth.Account{}, nil
	}
	return challenged.Account(ctx)
}

// Grant is what a registry lets us in by.
type Grant struct {
	// Kind is "ECR token", "bearer token", "basic" or "none".
	Kind string
	// Until is when a token ends; zero where there is none or nobody knows.
	Until time.Time
}

// Grant gets a token where the registry asks for one, and asks for /v2/ with it.
// The token is for pulls from the repository, or for nothing but to log in where
// that is "".
func (r *Registry) Grant(ctx context.Context, repository string) (Grant, error) {
	resp, err := r.ask(ctx, request{scope: repository, path: "/"})
	if err != nil {
		return Grant{}, err
	}
	if resp.StatusCode != http.StatusOK {
		return Grant{}, reply.Read(resp)
	}
	resp.Body.Close()
	switch a := r.auth.(type) {
	case *ecrAuth:
		return Grant{"ECR token", a.source.until()}, nil
	case *auth.Challenged:
		return grantOf(a, repository), nil
	}
	return Grant{Kind: "none"}, nil
}

// until is when the token that is in use ends.
func (s *tokenSource) until() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.token.until()
}

func grantOf(a *auth.Challenged, repository string) Grant {
	switch a.Scheme() {
	case "bearer":
		return Grant{"bearer token", a.TokenExpires(repository)}
	case "basic":
		return Grant{Kind: "basic"}
	}
	return Grant{Kind: "none"}
}

// Locate asks the registry for a blob, and returns the scheme and host that it
// redirects to, or its own where it would send the blob itself.
func (r *Registry) Locate(ctx context.Context, repository string, dgst digest.Digest) (string, error) {
	resp, err := r.ask(ctx, request{repository: repository, path: "blobs/" + dgst.String(), byteRange: "bytes=0-0"})
	if err != nil {
		return "", err
	}
	if redirected(resp) {
		to, err := r.location(resp)
		if err != nil {
			return "", err
		}
		return guard.Origin(to), nil
	}
	if resp.StatusCode >= http.StatusBadRequest {
		return "", reply.Read(resp)
	}
	resp.Body.Close()
	return guard.Origin(r.endpoint), nil
}

// Describe says in words what the registry is taken for, by its name.
func (r *Registry) Describe() string {
	host, isECR := ParseECRHost(r.host)
	text := "a registry that is not ECR's"
	switch {
	case isECR && host.Public:
		text = "ECR Public"
	case isECR:
		text = fmt.Sprintf("private ECR of account %s in %s (%s)", host.Account, host.Region, host.Partition)
	case r.IsECR():
		text = "private ECR under another name"
	}
	if host.FIPS {
		text += ", FIPS"
	}
	if host.DualStack {
		text += ", dual-stack"
	}
	if isECR && !host.Public && !r.IsECR() {
		text += ", with the configured login in place of AWS's own"
	}
	return text
}
