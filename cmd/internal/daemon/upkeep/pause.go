package upkeep

import (
	"context"
	"math/rand/v2"
	"time"
)

// repeat calls work after the first pause and then after every further one, until
// ctx ends.
func repeat(ctx context.Context, first, every time.Duration, work func()) {
	for pause := first; sleep(ctx, jittered(pause)); pause = every {
		work()
	}
}

// jittered returns d and up to a fifth more, so that nodes which started together
// do not ask together.
func jittered(d time.Duration) time.Duration {
	return d + time.Duration(rand.Int64N(int64(d)/5))
}

// sleep waits, and returns false when ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
