package pace

import (
	"time"

	"github.com/cenkalti/backoff/v5"
)

// NewBackoff returns the pauses between attempts that fail: the first one, then
// each twice as long as the one before, up to the longest. They have no jitter
// unless the caller sets it. It is not safe for concurrent use.
func NewBackoff(first, longest time.Duration) *backoff.ExponentialBackOff {
	return &backoff.ExponentialBackOff{InitialInterval: first, Multiplier: 2, MaxInterval: longest}
}
