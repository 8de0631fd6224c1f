package upstream

import (
	"context"
	"fmt"
	"net"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2/simplelru"
)

// outages remembers the addresses that could not be reached, so that requests
// to them fail at once rather than after one dial timeout each. When it is time
// to try again, one request does, and the others still fail at once. It is safe
// for concurrent use.
type outages struct {
	mu   sync.Mutex // guards what follows; not held while dialling
	down *lru.LRU[string, outage]
}

type outage struct {
	err    error
	until  time.Time
	length time.Duration
}

const (
	// dialTimeout bounds a name's resolution and the connection together: enough
	// for a packet that is lost and sent again after a second.
	dialTimeout = 3 * time.Second
	// firstOutage and maxOutage are how long an address is left alone, after its
	// first failure and at most. It is never less than the failure took.
	firstOutage = 250 * time.Millisecond
	maxOutage   = 4 * time.Second
)

func newOutages() *outages {
	down, _ := lru.NewLRU[string, outage](256, nil) // fails only for a size that is not positive
	return &outages{down: down}
}

// dial connects to addr by way of connect, unless that has just failed.
func (o *outages) dial(ctx context.Context, addr string, connect func() (net.Conn, error)) (net.Conn, error) {
	last, err := o.begin(addr)
	if err != nil {
		return nil, fmt.Errorf("not tried again yet: %w", err)
	}
	began := time.Now()
	conn, err := connect()
	o.end(ctx, addr, last, time.Since(began), err)
	return conn, err
}

// begin returns the error of the last attempt while it holds. Otherwise the
// caller makes the next one, and holds others off meanwhile.
func (o *outages) begin(addr string) (last outage, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	last, known := o.down.Get(addr)
	if !known {
		return outage{}, nil
	}
	now := time.Now()
	if now.Before(last.until) {
		return last, last.err
	}
	o.down.Add(addr, outage{last.err, now.Add(dialTimeout), last.length})
	return last, nil
}

// end draws the consequence of an attempt. One that its caller gave up says
// nothing.
func (o *outages) end(ctx context.Context, addr string, last outage, took time.Duration, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case err == nil:
		o.down.Remove(addr)
	case ctx.Err() == nil:
		length := max(min(max(2*last.length, firstOutage), maxOutage), took)
		o.down.Add(addr, outage{err, time.Now().Add(length), length})
	case last.err != nil:
		o.down.Add(addr, last)
	}
}
