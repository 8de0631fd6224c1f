package blobs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/larder-registry/larder/cache/disk"
	"github.com/larder-registry/larder/cache/recency"
)

// Reasons for an eviction, in logs and metrics.
const (
	ReasonUnused  = "least recently used"
	ReasonExpired = "expired by a lifecycle rule"
	ReasonRemoved = "removed by command"
	ReasonGone    = "expired, and gone upstream"
	ReasonRecords = "names too much for the index"
)

// Reasons lists all of them.
func Reasons() []string {
	return []string{ReasonUnused, ReasonExpired, ReasonRemoved, ReasonGone, ReasonRecords}
}

// maxRounds is how often a goroutine that reserves space evicts for it. Another one may take
// what it freed, or a fill may be about to bring all that could be evicted.
const maxRounds = 16

// ReserveBytes reserves n bytes of disk for a file that is about to be written, and evicts
// the least recently used blobs for it. It waits until the folder is loaded.
func (s *Store) ReserveBytes(ctx context.Context, n int64) error {
	select {
	case <-s.loaded:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if err := s.Health.Refuses(); err != nil {
		return err
	}
	if err := s.Space.CheckFits(n); err != nil {
		return err
	}
	if short, err := s.Space.Reserve(n); !short.IsPositive() || err != nil {
		return err
	}
	if s.KeepAll {
		return s.doesNotFit(n)
	}
	// Goroutines that need space wait for each other, so that each evicts no more than is
	// missing when its turn comes. No other goroutine waits.
	if err := s.evicting.lock(ctx); err != nil {
		return err
	}
	defer s.evicting.Unlock()
	for range maxRounds {
		short, err := s.Space.Reserve(n)
		if !short.IsPositive() || err != nil {
			return err
		}
		if !short.Within(s.evictable()) {
			break
		}
		if err := s.evictFor(short); err != nil {
			return err
		}
		s.askForEviction()
	}
	if err := s.checkDiskFree(); err != nil {
		return err
	}
	return s.doesNotFit(n)
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
	if err != nil {
		return err
	}
	if !short.IsPositive() || !s.KeepAll && short.Within(s.evictable()) {
		return nil
	}
	if err := s.checkDiskFree(); err != nil {
		return err
	}
	return s.doesNotFit(n)
}

func (s *Store) doesNotFit(n int64) error {
	return disk.BoundError{Err: fmt.Errorf("the cache has no space for %d bytes: %w", n, unix.ENOSPC)}
}

// evictable is what the items take that are not protected and that nobody reads.
func (s *Store) evictable() disk.Amount {
	free := s.unprotected()
	for _, partial := range []bool{false, true} {
		for _, d := range s.opened.digests(partial) {
			if it, ok := s.Items.Get(d); ok && it.Partial == partial && !s.Pins.Protects(d) {
				free.Bytes -= it.Bytes
				free.Files--
			}
		}
	}
	return free
}

// unprotected is what the items take that are neither pinned nor held.
func (s *Store) unprotected() disk.Amount {
	bytes, items := s.Pins.Evictable()
	return disk.Amount{Bytes: bytes, Files: int64(items)}
}

// evictFor evicts what has expired, then what is least recently used and not being read, until
// as much as is needed is free or nothing is left. The caller has locked s.evicting.
func (s *Store) evictFor(need disk.Amount) error {
	for tries := s.Items.Len(); need.IsPositive() && tries > 0; tries-- {
		d, expired, ok := s.Items.First()
		if !ok {
			break
		}
		if s.isRead(d) { // it would take its space until it is closed
			s.Items.Skip(d)
			continue
		}
		reason := ReasonUnused
		if expired {
			reason = ReasonExpired
		}
		n, err := s.evict(d, reason)
		if err != nil {
			return fmt.Errorf("evict %s: %w", d, err)
		}
		if n > 0 {
			need = disk.Amount{Bytes: need.Bytes - n, Files: need.Files - 1}
		}
	}
	return nil
}

// isRead reports whether the file of an item is open.
func (s *Store) isRead(d digest.Digest) bool {
	it, _ := s.Items.Get(d)
	return s.opened.isOpen(d, it.Partial)
}

// Unlinked is how many bytes removed files take that are still open.
func (s *Store) Unlinked() int64 { return s.opened.unlinked() }

// evict removes a blob or a partial download, unless it is pinned, held or being written. It returns
// how many bytes that frees now: if the file is open, they are free when it is closed. The
// caller has locked s.evicting.
func (s *Store) evict(d digest.Digest, reason string) (freed int64, err error) {
	if s.Pins.Protects(d) {
		s.Items.Skip(d)
		return 0, nil
	}
	if !s.locks.tryLock(d) {
		s.Items.Use(d, s.Now())
		return 0, nil
	}
	defer s.locks.unlock(d)
	it, ok := s.Items.Remove(d)
	if !ok {
		return 0, nil
	}
	eviction := Eviction{Digest: d, Bytes: it.Bytes, Reason: reason, Partial: it.Partial, Repositories: s.someRepositories(d)}
	if err := s.remove(d, it); err != nil {
		s.Items.Add(d, it, s.Now()) // not the first to be tried again
		return 0, err
	}
	freed = s.opened.remove(d, it.Partial, it.Bytes)
	s.Counts.Evicted(d, it.Bytes, reason, reason == ReasonUnused)
	eviction.At = s.Now()
	s.evicted.add(eviction)
	s.Log.Info("evicted", "reason", reason, "digest", d, "bytes", it.Bytes, "partial", it.Partial)
	return freed, nil
}

// remove deletes the files, then the records: a crash in between leaves records without a
// file, which have no effect. A reader that has the file open can read on.
func (s *Store) remove(d digest.Digest, it recency.Item) error {
	if it.Partial {
		paths := s.Folder.Partial(d)
		return errors.Join(s.Folder.RemoveIfExists(paths.Journal), s.Folder.RemoveIfExists(paths.Data))
	}
	if err := s.removeFile(d); err != nil {
		return err
	}
	if err := s.Index.Forget(d); err != nil {
		s.Trouble(slog.LevelWarn, "records of an evicted blob were left", err, "digest", d)
	}
	return nil
}

// IsHereOrComing reports whether a blob is on disk, or a fill or a partial may bring it. It
// returns at once.
func (s *Store) IsHereOrComing(d digest.Digest) bool {
	if s.locks.fill(d) != nil {
		return true
	}
	_, known := s.Items.Get(d)
	return known
}

// removeFile deletes the file of a blob, and no record.
func (s *Store) removeFile(d digest.Digest) error {
	err := s.Folder.RemoveIfExists(s.Folder.Blob(d))
	if err == nil {
		s.locks.setDamaged(d, false)
		s.verifier.forget(d)
		s.Removed(d)
	}
	return err
}

// WithoutEvictions calls f while nothing is evicted.
func (s *Store) WithoutEvictions(f func() error) error {
	s.evicting.Lock()
	defer s.evicting.Unlock()
	return f()
}

// Remove evicts the blobs that choose returns, but not those that are used meanwhile: they
// may be needed by an image that came in between. Nothing else is evicted meanwhile.
func (s *Store) Remove(reason string, choose func() ([]digest.Digest, error)) (freed int64, err error) {
	s.evicting.Lock()
	defer s.evicting.Unlock()
	watch := s.Items.Watch()
	defer s.Items.EndWatch(watch)
	chosen, err := choose()
	if err != nil {
		return 0, err
	}
	for _, d := range chosen {
		if s.Items.UsedDuring(watch, d) {
			continue
		}
		n, err := s.evict(d, reason)
		freed += n
		if err != nil {
			return freed, err
		}
	}
	return freed, nil
}

// LowSpace returns a channel that has a value when space is low: the receiver calls Trim
// with the low-water mark, so that not every fill of a full cache has to evict.
func (s *Store) LowSpace() <-chan struct{} { return s.lowSpace }

func (s *Store) askForEviction() {
	select {
	case s.lowSpace <- struct{}{}:
	default: // it has a value already
	}
}

// Trim evicts until the folder takes no more than a part of its maximum size, and the
// minimum free space is free, unless everything is to be kept.
func (s *Store) Trim(part float64) {
	if s.KeepAll {
		return
	}
	s.evicting.Lock()
	defer s.evicting.Unlock()
	err := s.Space.Measure()
	var excess disk.Amount
	evictable := s.evictable()
	if err == nil {
		excess, err = s.Space.Excess(part, s.Items.Bytes()-evictable.Bytes)
	}
	if err == nil && excess.IsPositive() && excess.Within(evictable) { // to evict everything in vain would help nobody
		err = s.evictFor(excess)
	}
	if err != nil {
		s.Trouble(slog.LevelError, "the cache cannot be kept within its bounds", err)
	}
}
