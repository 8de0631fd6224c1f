package distribution

import (
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// ECR Public's limits in pulls per second, from the service quotas.
const (
	anonymousPulls = 1
	signedInPulls  = 10
	// pullBurst lets an index and a manifest in it be pulled one after the other.
	pullBurst = 2
)

// PullLimits limits the pulls from ECR Public. Its methods may be called by several
// goroutines at once.
type PullLimits struct {
	now func() time.Time

	mu                  sync.Mutex    // guards the fields below
	anonymous, signedIn *rate.Limiter // nil for no limit
	exceeded            int           // pulls above a limit, since the last reset
}

// NewPullLimits returns the limits of the real one. now is their clock.
func NewPullLimits(now func() time.Time) *PullLimits {
	l := &PullLimits{now: now}
	l.Set(anonymousPulls, signedInPulls, pullBurst)
	return l
}

// Set changes how many pulls are allowed per second, anonymously and with
// credentials; 0 removes a limit. burst pulls, at least one, may come at once.
func (l *PullLimits) Set(anonymous, signedIn float64, burst int) {
	limiter := func(perSecond float64) *rate.Limiter {
		if perSecond <= 0 {
			return nil
		}
		return rate.NewLimiter(rate.Limit(perSecond), max(burst, 1))
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.anonymous, l.signedIn = limiter(anonymous), limiter(signedIn)
}

// allow reports whether a pull is within the limit.
func (l *PullLimits) allow(anonymous bool) bool {
	now := l.now()
	l.mu.Lock()
	defer l.mu.Unlock()
	limiter := l.signedIn
	if anonymous {
		limiter = l.anonymous
	}
	if limiter == nil || limiter.AllowN(now, 1) {
		return true
	}
	l.exceeded++
	return false
}

// Exceeded returns how many pulls were above a limit since the last reset.
func (l *PullLimits) Exceeded() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.exceeded
}

// ResetCount sets the count of Exceeded to zero.
func (l *PullLimits) ResetCount() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.exceeded = 0
}
