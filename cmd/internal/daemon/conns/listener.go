// Package conns bounds the connections of a TCP server: how many there are, how many one
// client has, and how long a client may take nothing of a response. So clients that open
// connections and stop using them leave the descriptors that others need.
package conns

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/larder-registry/larder/upstream/name"
)

const (
	// minWait is how long a connection must have been without a request before it makes
	// place for a new one: a request may be on its way.
	minWait = time.Second
	// warnEvery is the least time between two log lines about refused connections.
	warnEvery = time.Minute
)

// Listener is a [net.Listener] that keeps [Bounds]. If a bound is reached, a new connection
// takes the place of the one that has been without a request for longest. If all have
// requests, the new one is closed: its client then goes to the registry. It is safe for
// concurrent use.
type Listener struct {
	net.Listener
	bounds Bounds
	log    *slog.Logger
	cut    metric.Int64Counter

	bound, stalled metric.AddOption // the attributes of cut

	mu       sync.Mutex // guards what follows, and conn.waiting
	open     map[*conn]struct{}
	byClient map[netip.Prefix]int
	warned   time.Time // when a refusal was logged last
}

// Limit returns a listener that keeps bounds. Its name tells it from others in metrics and in
// the log.
func Limit(l net.Listener, name string, bounds Bounds, meter metric.MeterProvider, log *slog.Logger) (*Listener, error) {
	limited := &Listener{
		Listener: l,
		bounds:   bounds,
		log:      log.With("listener", name),
		bound:    metric.WithAttributeSet(attribute.NewSet(attribute.String("listener", name), attribute.String("reason", "bound"))),
		stalled:  metric.WithAttributeSet(attribute.NewSet(attribute.String("listener", name), attribute.String("reason", "stalled"))),
		open:     make(map[*conn]struct{}),
		byClient: make(map[netip.Prefix]int),
	}
	from := meter.Meter("github.com/larder-registry/larder/cmd/internal/daemon/conns")
	var err1, err2 error
	limited.cut, err1 = from.Int64Counter("larder.connections.cut", metric.WithUnit("{connection}"),
		metric.WithDescription("Connections of clients that were closed because there were too many, or because the client took nothing."))
	of := metric.WithAttributeSet(attribute.NewSet(attribute.String("listener", name)))
	_, err2 = from.Int64ObservableGauge("larder.connections", metric.WithUnit("{connection}"),
		metric.WithDescription("Open connections of clients."),
		metric.WithInt64Callback(func(_ context.Context, o metric.Int64Observer) error {
			o.Observe(int64(limited.count()), of)
			return nil
		}))
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	limited.cut.Add(context.Background(), 0, limited.bound)
	limited.cut.Add(context.Background(), 0, limited.stalled)
	return limited, nil
}

// Accept returns the next connection that the bounds allow.
func (l *Listener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		admitted, replaced := l.admit(c)
		if replaced != nil {
			_ = replaced.Close() // nobody waits for it
		}
		if admitted != nil {
			return admitted, nil
		}
		_ = c.Close() // its client sees that it was closed
		l.cut.Add(context.Background(), 1, l.bound)
		l.warn(c.RemoteAddr())
	}
}

// Note is the server's [http.Server.ConnState].
func (l *Listener) Note(c net.Conn, state http.ConnState) {
	if secured, ok := c.(interface{ NetConn() net.Conn }); ok {
		c = secured.NetConn() // TLS
	}
	ours, ok := c.(*conn)
	if !ok {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	switch state {
	case http.StateActive:
		ours.waiting = time.Time{}
	case http.StateIdle:
		ours.waiting = time.Now()
	}
}

// admit counts a connection, and returns it as the listener's own. replaced, if it is not
// nil, must be closed for it. Without place for it, both are nil.
func (l *Listener) admit(c net.Conn) (admitted, replaced *conn) {
	client := clientOf(c.RemoteAddr())
	l.mu.Lock()
	defer l.mu.Unlock()
	var full bool
	switch {
	case !client.Addr().IsLoopback() && l.byClient[client] >= l.bounds.PerClient:
		full = true
		replaced = l.longestWaiting(func(open *conn) bool { return open.client == client })
	case len(l.open) >= l.bounds.All:
		full = true
		replaced = l.longestWaiting(func(*conn) bool { return true })
	}
	if full && replaced == nil {
		return nil, nil
	}
	if replaced != nil {
		l.remove(replaced)
	}
	admitted = newConn(c, l, client)
	l.open[admitted] = struct{}{}
	l.byClient[client]++
	return admitted, replaced
}

// longestWaiting returns the connection that has been without a request for longest, of
// those for which of returns true, or nil. mu is held.
func (l *Listener) longestWaiting(of func(*conn) bool) (longest *conn) {
	latest := time.Now().Add(-minWait)
	for c := range l.open {
		if !c.waiting.IsZero() && !c.waiting.After(latest) && of(c) {
			longest, latest = c, c.waiting
		}
	}
	return longest
}

// forget gives the place of a connection back.
func (l *Listener) forget(c *conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.remove(c)
}

// remove is forget with mu held. It may be called more than once.
func (l *Listener) remove(c *conn) {
	if _, ok := l.open[c]; !ok {
		return
	}
	delete(l.open, c)
	if l.byClient[c.client]--; l.byClient[c.client] == 0 {
		delete(l.byClient, c.client)
	}
}

func (l *Listener) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.open)
}

// noteStall counts and logs that a client took nothing.
func (l *Listener) noteStall(c *conn) {
	l.cut.Add(context.Background(), 1, l.stalled)
	l.log.Info("a client took nothing of its response and is cut", "client", c.RemoteAddr(), "for", l.bounds.Stall)
}

// warn logs that a connection was refused, unless it was logged lately.
func (l *Listener) warn(client net.Addr) {
	now := time.Now()
	l.mu.Lock()
	due := now.Sub(l.warned) >= warnEvery
	if due {
		l.warned = now
	}
	l.mu.Unlock()
	if due {
		l.log.Warn("a connection was refused: too many are open and in use; the limit of open files decides how many may be",
			"client", client, "all", l.bounds.All, "per_client", l.bounds.PerClient)
	}
}

// clientOf returns the client that an address belongs to, see [name.Network]. An address that is not one of
// TCP belongs to a client of this machine.
func clientOf(addr net.Addr) netip.Prefix {
	if client, ok := name.Network(addr.String()); ok {
		return client
	}
	return netip.PrefixFrom(netip.IPv6Loopback(), 128)
}
