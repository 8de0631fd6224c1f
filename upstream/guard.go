package upstream

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/net/http/httpproxy"
)

// class says what kind of address a connection would go to.
type class int

const (
	// elsewhere is any public or private address.
	elsewhere class = iota
	loopback
	linkLocal   // with the metadata services
	unspecified // never allowed: 0.0.0.0, multicast, broadcast
)

// ec2Metadata is the instance metadata and credential service over IPv6, which
// are unique local addresses rather than link-local ones (AWS, "Instance
// metadata", and EKS, "Pod Identity": fd00:ec2::254, fd00:ec2::23).
var ec2Metadata = netip.MustParsePrefix("fd00:ec2::/32")

func classify(addr netip.Addr) class {
	addr = addr.Unmap().WithZone("")
	switch {
	case addr.IsLoopback():
		return loopback
	case addr.IsLinkLocalUnicast(), ec2Metadata.Contains(addr):
		return linkLocal
	case !addr.IsValid(), addr.IsUnspecified(), addr.IsMulticast(), addr == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return unspecified
	}
	return elsewhere
}

// classifyHost judges a host by its name alone: an address in its textual form,
// or a name that means this machine. Any other name is judged when it is dialled.
func classifyHost(host string) class {
	host = strings.TrimSuffix(strings.ToLower(host), ".")
	if addr, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil {
		return classify(addr)
	}
	if host == "localhost" || strings.HasSuffix(host, ".localhost") { // RFC 6761, 6.3
		return loopback
	}
	return elsewhere
}

// guard decides where connections may go: public and private addresses, and
// those of the class that the upstream's configured endpoint is of.
type guard struct {
	allowed class
	proxies map[string]bool // host:port that the environment names as proxies
	dialer  net.Dialer
	outages *outages
}

func newGuard(allowed class, proxies map[string]bool) *guard {
	g := &guard{allowed: allowed, proxies: proxies, outages: newOutages()}
	g.dialer = net.Dialer{Timeout: dialTimeout, KeepAlive: 30 * time.Second, ControlContext: g.control}
	return g
}

// dial is for http.Transport.
func (g *guard) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	if g.proxies[addr] {
		return (&net.Dialer{Timeout: dialTimeout}).DialContext(ctx, network, addr)
	}
	return g.outages.dial(ctx, addr, func() (net.Conn, error) { return g.dialer.DialContext(ctx, network, addr) })
}

// control sees each address after name resolution, just before connect(2).
func (g *guard) control(_ context.Context, _, address string, _ syscall.RawConn) error {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return err
	}
	addr, err := netip.ParseAddr(host)
	if err != nil {
		return err
	}
	if c := classify(addr); c != elsewhere && (c != g.allowed || c == unspecified) {
		return &refusedError{"a connection", address}
	}
	return nil
}

// check refuses a URL that an upstream leads to before anything is dialled.
// Behind a proxy it is the only check there is.
func (g *guard) check(what string, from, to *url.URL) error {
	c := classifyHost(to.Hostname())
	switch {
	case to.Scheme != "https" && to.Scheme != "http",
		to.Scheme == "http" && from.Scheme == "https",
		to.User != nil,
		to.Host == "",
		c != elsewhere && (c != g.allowed || c == unspecified):
		return &refusedError{what, origin(to)}
	}
	return nil
}

// transports has one http.Transport per class of endpoint, made when needed.
// HTTP/1.1 only: a blob that is cut must look cut, and one connection per blob
// is what gives parallel fetches their speed.
type transports struct {
	proxies map[string]bool
	limits  *limits // of the places that are asked through them

	mu  sync.Mutex
	all map[class]*transport
}

// tlsSessions is how many hosts' sessions are kept.
const tlsSessions = 64

type transport struct {
	*http.Transport
	guard *guard
}

func newTransports() *transports {
	return &transports{proxies: proxyAddresses(), limits: newLimits(), all: make(map[class]*transport)}
}

func (t *transports) get(allowed class) *transport {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.all[allowed] == nil {
		g := newGuard(allowed, t.proxies)
		t.all[allowed] = &transport{
			guard: g,
			Transport: &http.Transport{
				Proxy:                  http.ProxyFromEnvironment,
				DialContext:            g.dial,
				TLSHandshakeTimeout:    10 * time.Second,
				MaxIdleConns:           256,
				MaxIdleConnsPerHost:    32,
				IdleConnTimeout:        90 * time.Second,
				MaxResponseHeaderBytes: 64 << 10,
				DisableCompression:     true, // a digest is over the bytes as they are
				ReadBufferSize:         64 << 10,
				// S3 and registries resume a session: a round trip and a key exchange less for each connection
				// beyond the first.
				TLSClientConfig: &tls.Config{ClientSessionCache: tls.NewLRUClientSessionCache(tlsSessions)},
			},
		}
	}
	return t.all[allowed]
}

func (t *transports) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, tr := range t.all {
		tr.CloseIdleConnections()
	}
}

// proxyAddresses lists what HTTP_PROXY and HTTPS_PROXY name. The operator set
// them: they may be anywhere.
func proxyAddresses() map[string]bool {
	addrs := make(map[string]bool)
	env := httpproxy.FromEnvironment()
	for _, raw := range []string{env.HTTPProxy, env.HTTPSProxy} {
		if raw == "" {
			continue
		}
		if !strings.Contains(raw, "://") {
			raw = "http://" + raw
		}
		u, err := url.Parse(raw)
		if err != nil {
			continue // http.ProxyFromEnvironment reports it
		}
		port := u.Port()
		if port == "" {
			port = map[string]string{"https": "443", "socks5": "1080", "socks5h": "1080"}[u.Scheme]
		}
		if port == "" {
			port = "80"
		}
		addrs[net.JoinHostPort(u.Hostname(), port)] = true
	}
	return addrs
}
