package pace

import (
	"errors"
	"math/rand/v2"
	"time"

	"github.com/cenkalti/backoff/v5"
)

// NewBackoff returns the pauses between attempts that fail: the first one, then
// each twice as long as the one before, up to the longest. They have no jitter
// unless the caller sets it. It is not safe for concurrent use.
func NewBackoff(first, longest time.Duration) *backoff.ExponentialBackOff {
	return &backoff.ExponentialBackOff{InitialInterval: first, Multiplier: 2, MaxInterval: longest}
}

// NewJitteredBackoff is NewBackoff with pauses that differ by up to a half, so that requests
// which failed together are not repeated together.
func NewJitteredBackoff(first, longest time.Duration) *backoff.ExponentialBackOff {
	pauses := NewBackoff(first, longest)
	pauses.RandomizationFactor = backoff.DefaultRandomizationFactor
	return pauses
}

// Jittered returns d and up to a fifth more, so that nodes which started together do not ask
// together.
func Jittered(d time.Duration) time.Duration {
	return d + time.Duration(rand.Int64N(int64(d)/5+1))
}

// shortestPause is that of an error whose time has come: its cause may need a moment more.
const shortestPause = time.Second

// PauseAfter returns how long to wait until one of the things may be done that these errors have
// postponed: as the errors tell by a method RetryAfter, and longest at most. It is 0 without
// errors.
func PauseAfter(longest time.Duration, errs ...error) time.Duration {
	if len(errs) == 0 {
		return 0
	}
	pause := longest
	for _, err := range errs {
		var at interface{ RetryAfter() time.Duration }
		if errors.As(err, &at) {
			pause = min(pause, max(at.RetryAfter(), shortestPause))
		}
	}
	return pause
}
