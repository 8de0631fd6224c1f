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
