package upkeep

import (
	"context"
	"time"

	"github.com/larder-registry/larder/upstream/pace"
)

// repeat calls work after the first pause and then after every further one, until
// ctx ends.
func repeat(ctx context.Context, first, every time.Duration, work func()) {
	for pause := first; sleep(ctx, pace.Jittered(pause)); pause = every {
		work()
	}
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
