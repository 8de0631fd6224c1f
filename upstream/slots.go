package upstream

import (
	"context"
	"fmt"
	"sync"

	"golang.org/x/sync/semaphore"
)

// slots bounds the blob bodies that one upstream sends at the same time. It is safe
// for concurrent use.
type slots struct {
	host         string // for errors
	usual, spare *semaphore.Weighted
}

// maxBodies and maxSpareBodies are the numbers of slots. Spare bodies have their
// own, so that a roll-out of many layers is not held up by the parallel fetch of a
// few.
const (
	maxBodies      = 64
	maxSpareBodies = 16
)

func newSlots(host string) *slots {
	return &slots{host, semaphore.NewWeighted(maxBodies), semaphore.NewWeighted(maxSpareBodies)}
}

// acquire waits for a slot, or fails if a spare one is not free. release may be
// called more than once.
func (s *slots) acquire(ctx context.Context, spare bool) (release func(), err error) {
	if !spare {
		if err := s.usual.Acquire(ctx, 1); err != nil {
			return nil, fmt.Errorf("wait for a connection to %s: %w", s.host, context.Cause(ctx))
		}
		return sync.OnceFunc(func() { s.usual.Release(1) }), nil
	}
	if !s.spare.TryAcquire(1) {
		return nil, fmt.Errorf("%s has no spare connection: %d are in use", s.host, maxSpareBodies)
	}
	return sync.OnceFunc(func() { s.spare.Release(1) }), nil
}
