package daemon

import (
	"context"
	"net"
	"net/http"
	"sync"
	"time"
)

// defaultDrain is less than the 30 s after which Kubernetes kills, unless told
// otherwise.
const defaultDrain = 25 * time.Second

// maxSilence is how long a client that has connected may take to send a request
// while the server drains.
const maxSilence = 2 * time.Second

// silentConns are the connections on which no request has begun. [http.Server]
// closes these without an answer when it is shut down, though their clients may
// have sent a request already. The zero value has none. It is safe for concurrent
// use.
type silentConns struct {
	conns sync.Map // net.Conn to nothing
}

// note is the server's [http.Server.ConnState].
func (s *silentConns) note(conn net.Conn, state http.ConnState) {
	if state == http.StateNew {
		s.conns.Store(conn, nil)
	} else {
		s.conns.Delete(conn)
	}
}

// wait returns when there are none, when ctx ends, or after maxSilence.
func (s *silentConns) wait(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, maxSilence)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for s.any() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

func (s *silentConns) any() (found bool) {
	s.conns.Range(func(any, any) bool {
		found = true
		return false
	})
	return found
}

// busyConns are the connections on which a request is read or answered. The zero value has none. It
// is safe for concurrent use.
type busyConns struct {
	mu    sync.Mutex // guards what follows
	conns map[net.Conn]bool
	until time.Time // when the last one ended, if there are none
}

// note is the server's [http.Server.ConnState].
func (b *busyConns) note(conn net.Conn, state http.ConnState) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if state == http.StateActive {
		if b.conns == nil {
			b.conns = make(map[net.Conn]bool)
		}
		b.conns[conn] = true
		return
	}
	if b.conns[conn] {
		delete(b.conns, conn)
		b.until = time.Now()
	}
}

// within reports whether there are some, or were until so long ago.
func (b *busyConns) within(d time.Duration) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.conns) > 0 || !b.until.IsZero() && time.Since(b.until) < d
}

// comeBack is how long a client that fetches a layer in ranges takes at most between two of them, and
// comeBackShare how much of the drain's time clients may come back in: the rest is for the answers
// that run by then.
const (
	comeBack      = 250 * time.Millisecond
	comeBackShare = 0.8
)

// awaitPulls returns when no client has had an answer for a moment, when ctx ends, or after a time.
func (b *busyConns) awaitPulls(ctx context.Context, atMost time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, atMost)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for b.within(comeBack) {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}
