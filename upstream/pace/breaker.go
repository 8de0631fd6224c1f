package pace

import (
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
)

// Breaker remembers that a registry fails, so that requests which another one
// can answer go there at once. From time to time it lets one request probe
// whether the registry is back. It is safe for concurrent use.
type Breaker struct {
	mu       sync.Mutex // guards what follows
	failures int        // in a row
	pauses   *backoff.ExponentialBackOff
	until    time.Time // when the next probe may start; zero while the breaker is closed
	probing  bool
}

const (
	// maxFailures in a row open a breaker. One is enough if the registry did not
	// answer in time, as each more would keep a client waiting as long.
	maxFailures = 3
	// firstBreak and longestBreak are the first and the longest time for which a
	// registry is left alone.
	firstBreak   = 5 * time.Second
	longestBreak = time.Minute
)

// NewBreaker returns a closed breaker.
func NewBreaker() *Breaker { return &Breaker{pauses: NewBackoff(firstBreak, longestBreak)} }

// Enter reports whether to ask the registry, and whether that request is a
// probe. A caller that is admitted calls Succeeded, Failed or Abandoned when it
// knows the outcome.
func (b *Breaker) Enter() (admitted, probe bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.until.IsZero():
		return true, false
	case b.probing || time.Now().Before(b.until):
		return false, false
	}
	b.probing = true
	return true, true
}

// Succeeded closes the breaker, and reports whether it was open.
func (b *Breaker) Succeeded() (closed bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	closed = !b.until.IsZero()
	b.failures, b.until, b.probing = 0, time.Time{}, false
	b.pauses.Reset()
	return closed
}

// Failed counts a failure, and reports whether it opened the breaker. While the
// breaker is open, the failure of a request that was no probe changes nothing.
func (b *Breaker) Failed(probe, timeout bool) (opened bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.failures++
	isOpen := !b.until.IsZero()
	switch {
	case isOpen && !probe:
		return false
	case !isOpen && !timeout && b.failures < maxFailures:
		return false
	}
	b.until, b.probing = time.Now().Add(b.pauses.NextBackOff()), false
	return !isOpen
}

// Abandoned reports an outcome that says nothing about the registry.
func (b *Breaker) Abandoned(probe bool) {
	if !probe {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.probing = false
}
