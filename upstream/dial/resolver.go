package dial

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/larder-registry/larder/upstream/pace"
)

// Resolver looks names up as the machine is configured to. It remembers the name
// servers that do not answer: those are passed over as long as another one does, and
// are tried again from time to time. It is safe for concurrent use.
//
// It does so for Go's own resolver. Where a build with cgo uses the C library, that
// library decides.
type Resolver struct {
	net  *net.Resolver
	dial func(ctx context.Context, network, addr string) (net.Conn, error)

	mu       sync.Mutex           // guards what follows
	answered time.Time            // when any name server last answered
	mute     map[string]muteSince // by address
}

// muteSince is a name server that did not answer.
type muteSince struct {
	noticed time.Time
	until   time.Time // when it is asked again
}

const (
	// mutePause is how long a mute name server is passed over. Asking it again costs
	// one look-up 5 s.
	mutePause = 5 * time.Minute
	// maxNameServers bounds the name servers that are remembered. A resolv.conf has
	// three.
	maxNameServers = 16
)

// errMute is the error of a question to a name server that is passed over. The
// resolver then asks the next one.
var errMute = errors.New("the name server did not answer a moment ago; another one does")

// NewResolver returns a resolver that knows of no mute name server.
func NewResolver() *Resolver {
	r := &Resolver{dial: (&net.Dialer{}).DialContext, mute: make(map[string]muteSince)}
	r.net = &net.Resolver{Dial: r.ask}
	return r
}

// ResolverOf returns a Resolver that looks names up by another one, and remembers
// nothing.
func ResolverOf(by *net.Resolver) *Resolver { return &Resolver{net: by} }

// Mute returns the addresses of the name servers that did not answer when they were
// last asked, sorted.
func (r *Resolver) Mute() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var addrs []string
	for addr := range r.mute {
		addrs = append(addrs, addr)
	}
	slices.Sort(addrs)
	return addrs
}

// lookup returns the addresses of a host, which may be one itself.
func (r *Resolver) lookup(ctx context.Context, host string) ([]netip.Addr, error) {
	if ip, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{ip}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, pace.LookupTimeout)
	defer cancel()
	addrs, err := r.net.LookupNetIP(ctx, "ip", host)
	for i := range addrs {
		addrs[i] = addrs[i].Unmap()
	}
	return addrs, err
}

// ask is for net.Resolver.Dial: it opens the way to a name server.
func (r *Resolver) ask(ctx context.Context, network, addr string) (net.Conn, error) {
	if r.passesOver(addr, time.Now()) {
		return nil, errMute
	}
	conn, err := r.dial(untraced{ctx}, network, addr)
	if err != nil {
		return nil, err
	}
	seen := func(err error) { r.note(addr, err, time.Now()) }
	if packets, ok := conn.(*net.UDPConn); ok { // the resolver tells UDP from TCP by the type
		return &packetConn{packets, seen}, nil
	}
	return &streamConn{conn, seen}, nil
}

// untraced is a context without values: the hooks of an httptrace in it are about the
// connection to the host, not about those to name servers.
type untraced struct{ context.Context }

func (untraced) Value(any) any { return nil }

// passesOver reports whether a name server is not asked now: it was mute, and
// another one has answered since. When it is time to ask it again, one look-up does.
func (r *Resolver) passesOver(addr string, now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	m, ok := r.mute[addr]
	if !ok || r.answered.Before(m.noticed) {
		return false
	}
	if now.Before(m.until) {
		return true
	}
	m.until = now.Add(mutePause)
	r.mute[addr] = m
	return false
}

// note records whether a name server answered.
func (r *Resolver) note(addr string, err error, now time.Time) {
	var late net.Error
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case err == nil:
		r.answered = now
		delete(r.mute, addr)
	case errors.As(err, &late) && late.Timeout():
		if _, known := r.mute[addr]; known || len(r.mute) < maxNameServers {
			r.mute[addr] = muteSince{noticed: now, until: now.Add(mutePause)}
		}
	}
}

// packetConn and streamConn report whether an answer came.
type packetConn struct {
	*net.UDPConn
	seen func(error)
}

func (c *packetConn) Read(p []byte) (int, error) {
	n, err := c.UDPConn.Read(p)
	c.seen(err)
	return n, err
}

type streamConn struct {
	net.Conn
	seen func(error)
}

func (c *streamConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.seen(err)
	return n, err
}
