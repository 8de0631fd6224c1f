package cache

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/larder-registry/larder/cache/disk"
	"github.com/larder-registry/larder/cache/records"
)

const (
	// tick is how often the store looks after its folder: it records what was used, so that a
	// crash forgets no more than this; it measures the index, and evicts if others have
	// filled the disk.
	tick = 30 * time.Second
	// checkEvery is how often the disk is checked, and so how long it takes at most until a
	// disk that recovered is used again.
	checkEvery = 5 * time.Second
)

// keepUp looks after the folder until the store is closed.
func (s *Store) keepUp() {
	ctx := s.tasks.Context()
	s.load(ctx)
	s.blobs.Trim(1) // the bound may have changed
	s.tidyIndex(ctx)
	ticker, check := time.NewTicker(tick), time.NewTicker(checkEvery)
	defer ticker.Stop()
	defer check.Stop()
	for {
		select {
		case <-ctx.Done():
			s.recordUses()
			return
		case <-ticker.C:
			s.recordUses()
			s.continueRebuild(ctx)
			s.askForSnapshot()
			for _, pin := range s.pins.Tags() {
				s.releaseReplaced(tagID{pin.Repository, pin.Reference})
			}
			s.blobs.Trim(1)
			s.tidyIndex(ctx)
		case <-check.C:
			s.blobs.CheckDisk()
			s.repairIndex(ctx, false)
		case <-s.index.Suspect():
			s.repairIndex(ctx, true)
		case <-s.blobs.LowSpace():
			s.blobs.Trim(s.opts.LowWater)
		}
	}
}

// load finds out what is in the folder, which of it is pinned, and which has expired.
func (s *Store) load(ctx context.Context) {
	s.continueRebuild(ctx)
	err := s.blobs.Load(ctx, func() {
		s.pins.Start(ctx)
		if err := s.expireAgain(); err != nil {
			s.log.Warn("expired images are evicted like all others until lifecycle rules are applied again", "error", err)
		}
	})
	s.tidying.complete = err == nil
	if err != nil && ctx.Err() == nil {
		s.log.Error("parts of the cache folder could not be read; blobs there are served, and are counted and evicted after the next start", "error", err)
	}
}

// recordUses records when blobs were used.
func (s *Store) recordUses() {
	if err := s.index.PutUses(s.items.TakeUses()); err != nil {
		s.blobs.Trouble(slog.LevelWarn, "access times were not recorded", err)
	}
}

// snapshotShare bounds the part of the time that snapshots take: after one that took a
// second none begins for twenty.
const snapshotShare = 20

// keepSnapshots keeps the snapshot of the index up to date until the store is closed.
func (s *Store) keepSnapshots() {
	ctx := s.tasks.Context()
	var rest time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.snapshotDue:
		}
		begin := time.Now()
		if begin.Before(rest) {
			continue
		}
		s.saveSnapshot(ctx)
		rest = time.Now().Add(snapshotShare * time.Since(begin))
	}
}

func (s *Store) askForSnapshot() {
	select {
	case s.snapshotDue <- struct{}{}:
	default: // it was asked for already
	}
}

// saveSnapshot writes a snapshot if anything changed since the latest one.
func (s *Store) saveSnapshot(ctx context.Context) {
	err := s.writeSnapshot(ctx)
	switch {
	case err == nil:
		s.snapshotFailed.Store(false)
	case ctx.Err() != nil: // Close tries again
	case !s.snapshotFailed.Swap(true):
		s.blobs.Trouble(slog.LevelWarn, "the snapshot of the index could not be written; an older one stays", err)
	}
}

// writeSnapshot reserves the space of the snapshot as that grows, and evicts for it if
// necessary.
func (s *Store) writeSnapshot(ctx context.Context) error {
	return s.reserving(func(reserve records.Reserve) error { return s.index.Save(ctx, reserve) })
}

// reserving gives write a function to reserve the space of a snapshot with.
func (s *Store) reserving(write func(records.Reserve) error) error {
	var reserved int64
	err := write(func(ctx context.Context, n int64) error {
		n = disk.Charge(n)
		err := s.blobs.ReserveBytes(ctx, n)
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
