package guard

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"syscall"

	"github.com/larder-registry/larder/upstream/dial"
)

// RefusedError is a connection that was not made, as an upstream may not lead
// there.
type RefusedError struct {
	what, target string
}

// Refuse returns the error for a URL to which an upstream may not lead. use names the
// connection, such as "a redirect". The error shows only the URL's origin.
func Refuse(use string, to *url.URL) error { return &RefusedError{use, Origin(to)} }

func (e *RefusedError) Error() string {
	return fmt.Sprintf("%s to %s is refused: an upstream may not lead there", e.what, e.target)
}

// LogRefusal warns of err if it is a RefusedError.
func LogRefusal(log *slog.Logger, err error) {
	var refused *RefusedError
	if errors.As(err, &refused) {
		log.Warn("connection refused by policy", "error", err)
	}
}

// guard allows connections to public and private addresses, and to those of the
// class of the upstream's configured endpoint.
type guard struct {
	allowed class
	proxies map[string]bool // host:port that the environment names as proxies

	resolver *dial.Resolver
	guarded  *dial.Dialer
	free     *dial.Dialer // to proxies
}

func newGuard(allowed class, proxies map[string]bool, resolver *dial.Resolver) *guard {
	g := &guard{allowed: allowed, proxies: proxies, resolver: resolver, free: dial.New(dial.Options{Resolver: resolver})}
	g.guarded = dial.New(dial.Options{Resolver: resolver, Control: g.control})
	return g
}

// dial is for http.Transport.
func (g *guard) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	if g.proxies[addr] {
		return g.free.DialContext(ctx, network, addr)
	}
	return g.guarded.DialContext(ctx, network, addr)
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
		return &RefusedError{"a connection", address}
	}
	return nil
}

// check is for [Transport.Check].
func (g *guard) check(what string, from, to *url.URL) error {
	c := classifyHost(to.Hostname())
	switch {
	case to.Scheme != "https" && to.Scheme != "http",
		to.Scheme == "http" && from.Scheme == "https",
		to.User != nil,
		to.Host == "",
		c != elsewhere && (c != g.allowed || c == unspecified):
		return Refuse(what, to)
	}
	return nil
}
