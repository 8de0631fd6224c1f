package upstream

import (
	"sync"
	"time"
)

// breaker remembers that a registry fails, so that those who can go elsewhere
// do, and do not wait for it first. From time to time it lets one of them try
// whether the registry is back. It is safe for concurrent use.
type breaker struct {
	mu       sync.Mutex // guards what follows
	failures int        // in a row
	pause    time.Duration
	until    time.Time // when the next one may try; zero while all may
	trying   bool
}

const (
	// maxFailures in a row open a breaker; one is enough where the registry did
	// not answer in time, as each more would keep a client waiting as long.
	maxFailures = 3
	// firstBreak and longestBreak are how long a registry is left alone, at first
	// and at most.
	firstBreak   = 5 * time.Second
	longestBreak = time.Minute
)

// enter reports whether to ask the registry, and whether that is a try. Who is
// let in calls one of the methods below when the outcome is known.
func (b *breaker) enter() (ok, try bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.until.IsZero():
		return true, false
	case b.trying || time.Now().Before(b.until):
		return false, false
	}
	b.trying = true
	return true, true
}

// succeeded reports whether that is news.
func (b *breaker) succeeded() (closed bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	closed = !b.until.IsZero()
	b.failures, b.pause, b.until, b.trying = 0, 0, time.Time{}, false
	return closed
}

// failed takes a failure in, and reports whether the breaker has opened now.
// What failed while it was open already, and was no try, changes nothing.
func (b *breaker) failed(try, slow bool) (opened bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.failures++
	isOpen := !b.until.IsZero()
	switch {
	case isOpen && !try:
		return false
	case !isOpen && !slow && b.failures < maxFailures:
		return false
	}
	b.pause = min(max(2*b.pause, firstBreak), longestBreak)
	b.until, b.trying = time.Now().Add(b.pause), false
	return !isOpen
}

// abandoned is for an outcome that says nothing of the registry.
func (b *breaker) abandoned(try bool) {
	if !try {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.trying = false
}
