package cache

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/larder-registry/larder/cache/disk"
)

// snapshotShare bounds the part of the time that goes into snapshots: after one
// that took a second none begins for twenty.
const snapshotShare = 20

// saveAlong keeps the snapshot of the index up to date, until the store is
// closed. It is woken after access times were written, every tick.
func (s *Store) saveAlong() {
	var rest time.Time
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-s.save:
		}
		begin := time.Now()
		if begin.Before(rest) {
			continue
		}
		s.saveSnapshot(s.ctx)
		rest = time.Now().Add(snapshotShare * time.Since(begin))
	}
}

// saveSoon wakes saveAlong.
func (s *Store) saveSoon() {
	select {
	case s.save <- struct{}{}:
	default: // it is awake
	}
}

// saveSnapshot writes a snapshot if anything changed since the latest one.
func (s *Store) saveSnapshot(ctx context.Context) {
	err := s.writeSnapshot(ctx)
	switch {
	case err == nil:
		s.saveFailed.Store(false)
	case ctx.Err() != nil: // Close tries again
	case !s.saveFailed.Swap(true):
		s.trouble(slog.LevelWarn, "the snapshot of the index could not be written; an older one stays", err)
	}
}

// writeSnapshot is saveSnapshot with an error. It reserves the space of the
// snapshot as that grows, and evicts for it if necessary.
func (s *Store) writeSnapshot(ctx context.Context) error {
	var reserved int64
	err := s.index.Save(ctx, func(ctx context.Context, n int64) error {
		n = disk.Charge(n)
		err := s.reserve(ctx, n)
		if err == nil {
			reserved += n
		}
		return err
	})
	if reserved == 0 {
		return err
	}
	err = errors.Join(err, s.space.Measure())
	s.space.Confirm(reserved)
	s.space.Release(reserved) // it counts with the index now
	return err
}
