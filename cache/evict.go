package cache

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/larder-registry/larder/cache/disk"
	"github.com/larder-registry/larder/cache/recency"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

// tick is how often the store looks after its folder unasked: writes down what
// was used, so that a crash forgets no more than this; measures the index; and
// makes room when others have filled the disk.
const tick = 30 * time.Second

// maxRounds is how often a file that is about to be written may find the room
// that was made for it taken by another, or not made because all that could go
// is about to be filled.
const maxRounds = 16

// reserve takes n bytes of disk for a file that is about to be written, and
// evicts what was not used for longest to have them. It waits for the scan.
func (s *Store) reserve(ctx context.Context, n int64) error {
	select {
	case <-s.scanned:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if err := s.health.Refuses(); err != nil {
		return err
	}
	if err := s.space.CheckFits(n); err != nil {
		return err
	}
	if short, err := s.space.Reserve(n); short <= 0 || err != nil {
		return err
	}
	if s.opts.KeepAll {
		return s.noRoom(n)
	}
	// Those who need space wait for each other, so that each makes no more room
	// than is missing when its turn comes. Nobody else waits.
	if err := s.evicting.lock(ctx); err != nil {
		return err
	}
	defer s.evicting.Unlock()
	for range maxRounds {
		short, err := s.space.Reserve(n)
		if short <= 0 || err != nil {
			return err
		}
		if s.evictable() < short {
			break
		}
		if err := s.evict(short); err != nil {
			return err
		}
		s.evictOn()
	}
	if err := s.lacksRoom(); err != nil {
		return err
	}
	return s.noRoom(n)
}

func (s *Store) noRoom(n int64) error {
	return disk.BoundError{Err: fmt.Errorf("%s has no room for %d bytes: %w", s.folder.Dir(), n, unix.ENOSPC)}
}

// evict removes what has expired, then what was not used for longest, until need
// bytes are free or nothing is left. The caller holds s.evicting.
func (s *Store) evict(need int64) error {
	for tries := s.recency.Len(); need > 0 && tries > 0; tries-- {
		d, expired, ok := s.recency.First()
		if !ok {
			break
		}
		reason := reasonUnused
		if expired {
			reason = reasonExpired
		}
		n, err := s.evictOne(d, reason)
		if err != nil {
			return fmt.Errorf("evict %s: %w", d, err)
		}
		need -= n
	}
	return nil
}

// Why something is evicted, in logs and metrics.
const (
	reasonUnused  = "least recently used"
	reasonExpired = "expired by a lifecycle rule"
)

// evictOne removes a blob or partial, unless it is being written.
func (s *Store) evictOne(d digest.Digest, reason string) (freed int64, err error) {
	if s.pinned.holds(d) {
		s.recency.Skip(d)
		return 0, nil
	}
	if !s.shut(d) {
		s.recency.Use(d, s.opts.Now())
		return 0, nil
	}
	defer s.unshut(d)
	it, ok := s.recency.Remove(d)
	if !ok {
		return 0, nil
	}
	gone := Eviction{Digest: d, Bytes: it.Bytes, Reason: reason, Partial: it.Partial, Repositories: s.someRepositories(d)}
	if err := s.remove(d, it); err != nil {
		s.recency.Add(d, it, s.opts.Now()) // not the first to be tried again
		return 0, err
	}
	s.space.Release(it.Bytes)
	s.metrics.evicted(d, it.Bytes, reason)
	gone.At = s.opts.Now()
	s.evicted.add(gone)
	s.log.Info("evicted", "reason", reason, "digest", d, "bytes", it.Bytes, "partial", it.Partial)
	return it.Bytes, nil
}

// remove deletes the files, then the records: a crash in between leaves records
// without a file, which count for nothing. Whoever reads a file keeps it.
func (s *Store) remove(d digest.Digest, it recency.Item) error {
	if it.Partial {
		paths := s.folder.Partial(d)
		return errors.Join(s.folder.RemoveIfExists(paths.Journal), s.folder.RemoveIfExists(paths.Data))
	}
	if err := s.removeContent(d); err != nil {
		return err
	}
	if err := s.index.Forget(d); err != nil {
		s.trouble(slog.LevelWarn, "records of an evicted blob were left", err, "digest", d)
	}
	return nil
}

// removeContent deletes the file of a blob, and no record: of what is pinned they
// tell that it was here, and what it names.
func (s *Store) removeContent(d digest.Digest) error {
	err := s.folder.RemoveIfExists(s.folder.Blob(d))
	if err == nil {
		s.setDamaged(d, false)
		s.memory.forget(d)
	}
	return err
}

// tend looks after the folder until the store is closed.
func (s *Store) tend() {
	if err := s.scan(); err != nil {
		if s.ctx.Err() == nil {
			s.log.Error("not all of the cache folder could be read; what was not is served, and counted and evicted after the next start", "error", err)
		}
		s.recency.Load(nil)
	}
	close(s.scanned)
	s.makeRoom(1) // the bound may be another than it was
	ticker, checkUp := time.NewTicker(tick), time.NewTicker(checkUpEvery)
	defer ticker.Stop()
	defer checkUp.Stop()
	for {
		select {
		case <-s.ctx.Done():
			s.writeUses()
			return
		case <-ticker.C:
			s.writeUses()
			s.rebuildOn()
			s.saveSoon()
			s.makeRoom(1)
		case <-checkUp.C:
			s.checkUp()
		case <-s.wake:
			s.makeRoom(s.opts.LowWater)
		}
	}
}

// evictOn has tend evict down to the low water mark, so that not every fill of a
// full cache has to.
func (s *Store) evictOn() {
	select {
	case s.wake <- struct{}{}:
	default: // it is awake
	}
}

// makeRoom evicts until the folder takes no more than a part of max_size, and
// leaves min_free, unless all is to be kept.
func (s *Store) makeRoom(part float64) {
	if s.opts.KeepAll {
		return
	}
	s.evicting.Lock()
	defer s.evicting.Unlock()
	err := s.space.Measure()
	var over int64
	if err == nil {
		over, err = s.space.Excess(part, s.recency.Bytes()-s.evictable())
	}
	if err == nil && 0 < over && over <= s.evictable() { // all of it in vain would help nobody
		err = s.evict(over)
	}
	if err != nil {
		s.trouble(slog.LevelError, "the cache cannot be kept within its bounds", err)
	}
}

// writeUses records when things were used.
func (s *Store) writeUses() {
	if err := s.index.PutUses(s.recency.TakeUses()); err != nil {
		s.trouble(slog.LevelWarn, "access times were not recorded", err)
	}
}
