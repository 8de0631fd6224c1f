package guard

import (
	"crypto/tls"
	"fmt"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/larder-registry/larder/upstream/dial"
)

// Options are the settings of [Transports].
type Options struct {
	// Resolver looks up the names of hosts. Nil means one of dial.NewResolver.
	Resolver *dial.Resolver
}

// Transports has one [Transport] for each class of endpoint, made when needed. It
// is safe for concurrent use.
type Transports struct {
	proxies  map[string]bool
	resolver *dial.Resolver

	mu  sync.Mutex // guards what follows
	all map[class]*Transport
}

// Transport makes the connections that one class of endpoint may lead to. It
// speaks HTTP/1.1 only: a body that is cut must look cut, and parallel fetches
// are fast because each blob has a connection.
type Transport struct {
	*http.Transport
	guard *guard

	fresh func() *http.Transport // for RoundTripFresh
}

// tlsSessions is how many hosts' sessions are kept.
const tlsSessions = 64

// NewTransports returns one without connections. Proxies are those of the
// environment.
func NewTransports(opts Options) *Transports {
	if opts.Resolver == nil {
		opts.Resolver = dial.NewResolver()
	}
	return &Transports{proxies: proxyAddresses(), resolver: opts.Resolver, all: make(map[class]*Transport)}
}

// Resolver returns what looks up the names of hosts.
func (t *Transports) Resolver() *dial.Resolver { return t.resolver }

// For returns the transport for an upstream with this endpoint. Upstreams of one
// class share it.
func (t *Transports) For(endpoint *url.URL) *Transport {
	allowed := classifyHost(endpoint.Hostname())
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.all[allowed] == nil {
		t.all[allowed] = newTransport(newGuard(allowed, t.proxies, t.resolver))
	}
	return t.all[allowed]
}

// CloseIdle closes idle connections.
func (t *Transports) CloseIdle() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, tr := range t.all {
		tr.CloseIdleConnections()
	}
}

func newTransport(g *guard) *Transport {
	t := &Transport{
		guard: g,
		Transport: &http.Transport{
			Proxy:                  Proxy,
			DialContext:            g.dial,
			TLSHandshakeTimeout:    10 * time.Second,
			MaxIdleConns:           256,
			MaxIdleConnsPerHost:    32,
			IdleConnTimeout:        90 * time.Second,
			MaxResponseHeaderBytes: 64 << 10,
			DisableCompression:     true, // a digest is over the bytes as they are
			ReadBufferSize:         64 << 10,
			// S3 and registries resume a session. That saves a round trip and a key exchange for each connection
			// after the first.
			TLSClientConfig: &tls.Config{ClientSessionCache: tls.NewLRUClientSessionCache(tlsSessions)},
		},
	}
	t.fresh = sync.OnceValue(func() *http.Transport {
		fresh := t.Clone()
		fresh.DisableKeepAlives = true
		return fresh
	})
	return t
}

// RoundTrip makes one request: see [http.RoundTripper]. An answer of 101 is an error.
// No request asks for another protocol, and the body of such an answer is the
// connection itself: it has no end, and no context ends a read of it. Other 1xx never
// arrive here, as [http.Transport] waits for the final answer.
func (t *Transport) RoundTrip(req *http.Request) (*http.Response, error) {
	return roundTrip(t.Transport, req)
}

// RoundTripFresh is RoundTrip on a new connection, which is not kept.
func (t *Transport) RoundTripFresh(req *http.Request) (*http.Response, error) {
	return roundTrip(t.fresh(), req)
}

// roundTrip is for [Transport.RoundTrip].
func roundTrip(by *http.Transport, req *http.Request) (*http.Response, error) {
	resp, err := by.RoundTrip(req)
	if err == nil {
		err = CheckFinal(resp)
	}
	if err != nil {
		return nil, err
	}
	return resp, nil
}

// CheckFinal returns an error for an answer of 1xx, and closes its body. The answer is one
// of http.RoundTripper. See [Transport.RoundTrip].
func CheckFinal(resp *http.Response) error {
	if resp.StatusCode >= http.StatusOK {
		return nil
	}
	resp.Body.Close()
	return fmt.Errorf("%s answered %s, which nothing asked for", resp.Request.URL.Host, resp.Status)
}

// MuteNameServers returns the addresses of the name servers that did not answer when
// they were last asked.
func (t *Transport) MuteNameServers() []string { return t.guard.resolver.Mute() }

// Check refuses a URL to which an upstream may not lead, before anything is
// dialled. Behind a proxy it is the only check there is. use names the
// connection, such as "a redirect"; from is the URL of the request that led there.
func (t *Transport) Check(use string, from, to *url.URL) error { return t.guard.check(use, from, to) }
