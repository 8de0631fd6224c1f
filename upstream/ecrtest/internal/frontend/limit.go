package frontend

import (
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// limits are rate limits by kinds of requests.
type limits struct {
	mu       sync.Mutex // guards the fields below
	limiters map[Op]*rate.Limiter
	exceeded int // requests above a limit, since the last reset
}

// set limits the requests of the kinds on, counted together. It replaces the limit
// of the same kinds; 0 per second removes it.
func (l *limits) set(on Op, perSecond float64, burst int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.limiters, on)
	if perSecond > 0 {
		if l.limiters == nil {
			l.limiters = make(map[Op]*rate.Limiter)
		}
		l.limiters[on] = rate.NewLimiter(rate.Limit(perSecond), max(burst, 1))
	}
}

// allow reports whether a request is within all limits.
func (l *limits) allow(op Op, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	ok := true
	for on, limiter := range l.limiters {
		if on&op != 0 && !limiter.AllowN(now, 1) {
			ok = false
		}
	}
	if !ok {
		l.exceeded++
	}
	return ok
}

// count returns how many requests exceeded a limit.
func (l *limits) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.exceeded
}

func (l *limits) reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.exceeded = 0
}
