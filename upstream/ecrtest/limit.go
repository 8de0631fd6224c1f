package ecrtest

import (
	"sync"
	"time"
)

// SetRateLimit has requests of the kinds on, counted together, answered as
// [Fault.Throttle] does once there are more than perSecond, by the server's
// clock. burst is how many may come at once, at least one. It replaces the limit
// on the same kinds; 0 per second takes it away.
func (s *Server) SetRateLimit(on Op, perSecond float64, burst int) {
	s.limits.mu.Lock()
	defer s.limits.mu.Unlock()
	delete(s.limits.buckets, on)
	if perSecond > 0 {
		s.limits.buckets[on] = newBucket(perSecond, burst)
	}
}

type limits struct {
	mu                  sync.Mutex // guards what follows
	buckets             map[Op]*bucket
	anonymous, signedIn *bucket // of ECR Public's pulls; nil for no limit
	exceeded            int     // requests that came too early, since ResetStats
}

// take tells whether no limit is exceeded by a request.
func (l *limits) take(op Op, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	ok := true
	for on, b := range l.buckets {
		if on&op != 0 && !b.take(now) {
			ok = false
		}
	}
	if !ok {
		l.exceeded++
	}
	return ok
}

// bucket is a token bucket. Its owner guards it.
type bucket struct {
	rate, burst float64
	tokens      float64
	at          time.Time // when there were so many
}

func newBucket(perSecond float64, burst int) *bucket {
	most := float64(max(burst, 1))
	return &bucket{rate: perSecond, burst: most, tokens: most}
}

func (b *bucket) take(now time.Time) bool {
	if d := now.Sub(b.at); d > 0 {
		b.tokens = min(b.burst, b.tokens+d.Seconds()*b.rate)
		b.at = now
	}
	if b.tokens < 1 {
		return false
	}
	b.tokens--
	return true
}
