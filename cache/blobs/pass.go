package blobs

import (
	"context"
	"log/slog"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/cache/disk"
	"github.com/larder-registry/larder/cache/fill"
)

const (
	// memoryPassed is how many blobs are remembered that were passed through.
	memoryPassed = 256
	// passedQuiet is how long nothing more is logged about one of them: a client that reads in
	// pieces asks for each.
	passedQuiet = 10 * time.Minute
)

// pass returns a blob whose space could not be reserved, as far as that is known before a fill
// has tried. A fill would ask the source for the beginning of the blob, for each range that a
// client reads of it. Nil means that a fill is to find out.
func (s *Store) pass(ctx context.Context, d digest.Digest, source fill.Source) *Blob {
	if source.Size <= 0 || s.IsHereOrComing(d) {
		return nil
	}
	err := s.checkReservable(disk.Charge(source.Size))
	if err == nil {
		return nil
	}
	last, known := s.passed.Get(d)
	if now := s.Now(); !known || now.Sub(last) > passedQuiet {
		s.passed.Add(d, now)
		s.Trouble(slog.LevelError, "the cache folder cannot take a blob; it is passed through", err, "digest", d)
	}
	return newBlob(fill.NewPassing(ctx, &s.Fill, d, source))
}

// checkReservable returns the error with which the reservation of n bytes would fail now. It
// evicts nothing, and waits for nothing. Nil means that the reservation may succeed.
func (s *Store) checkReservable(n int64) error {
	select {
	case <-s.loaded:
	default:
		return nil
	}
	if err := s.Health.Refuses(); err != nil {
		return err
	}
	if err := s.Space.CheckFits(n); err != nil {
		return err
	}
	short, err := s.Space.Short(n)
	if err != nil || !short.IsPositive() || !s.KeepAll && short.Within(s.evictable()) {
		return nil // an error is for the reservation to deal with
	}
	if err := s.checkDiskFree(); err != nil {
		return err
	}
	return s.doesNotFit(n)
}
