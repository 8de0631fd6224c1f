package pace

import (
	"context"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
	lru "github.com/hashicorp/golang-lru/v2/simplelru"
)

// Outages remembers the addresses that could not be reached, so that requests to
// them fail at once instead of after a dial timeout each. When it is time to try
// again, one request dials and the others still fail at once. It is safe for
// concurrent use.
type Outages struct {
	mu   sync.Mutex // guards what follows; not held while dialling
	down *lru.LRU[string, outage]
}

// outage is an address that could not be reached.
type outage struct {
	err    error
	until  time.Time
	pauses *backoff.ExponentialBackOff
}

const (
	// LookupTimeout bounds the look-up of a name: enough for a resolver that turns to
	// its second name server after 5 s, its default (resolv.conf(5), "timeout").
	LookupTimeout = 10 * time.Second
	// ConnectTimeout bounds a connection to the addresses of a name: enough for one
	// lost packet, which is sent again after a second.
	ConnectTimeout = 3 * time.Second
	// firstOutage and longestOutage are the first and the longest time for which an
	// address is left alone. It is never less than the failed attempt took.
	firstOutage   = 250 * time.Millisecond
	longestOutage = 4 * time.Second
	// maxOutages bounds the addresses that are remembered.
	maxOutages = 256
)

// NewOutages returns one that knows of no outage.
func NewOutages() *Outages {
	down, _ := lru.NewLRU[string, outage](maxOutages, nil) // fails only for a size that is not positive
	return &Outages{down: down}
}

// Dial connects to addr with connect. If addr could not be reached a moment ago,
// it returns that error again without connecting.
func (o *Outages) Dial(ctx context.Context, addr string, connect func() (net.Conn, error)) (net.Conn, error) {
	last, err := o.begin(addr)
	if err != nil {
		return nil, fmt.Errorf("not tried again yet: %w", err)
	}
	began := time.Now()
	conn, err := connect()
	o.end(ctx, addr, last, time.Since(began), err)
	return conn, err
}

// begin returns the error of the last attempt during its pause. After the pause
// the caller makes the next attempt, and the others get the error meanwhile.
func (o *Outages) begin(addr string) (last outage, err error) {
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
	o.down.Add(addr, outage{last.err, now.Add(LookupTimeout + ConnectTimeout), last.pauses})
	return last, nil
}

// end records the outcome of an attempt. An attempt that its caller abandoned
// says nothing.
func (o *Outages) end(ctx context.Context, addr string, last outage, took time.Duration, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case err == nil:
		o.down.Remove(addr)
	case ctx.Err() == nil:
		pauses := last.pauses
		if pauses == nil {
			pauses = NewBackoff(firstOutage, longestOutage)
		}
		o.down.Add(addr, outage{err, time.Now().Add(max(pauses.NextBackOff(), took)), pauses})
	case last.err != nil:
		o.down.Add(addr, last)
	}
}
