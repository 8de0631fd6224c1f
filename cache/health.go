package cache

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// health is what is known of the disk as a whole: whether it takes what the
// cache writes. Where it does not, blobs and manifests are passed through, and
// one line says so, and another one when that is over. It is safe for concurrent
// use.
type health struct {
	log *slog.Logger

	mu       sync.Mutex // guards what follows
	cause    error      // nil while the disk is well
	since    time.Time
	until    time.Time     // when the illness before this one was over
	failures uint64        // noted so far
	failed   time.Time     // the latest of them
	patience time.Duration // without a failure, before the disk is called well
}

// checkUpEvery is how often the disk is looked at: how long it takes at most
// until a disk that recovered is used again. It costs a statfs, and while the
// disk is ill the writing of a small file.
const checkUpEvery = 5 * time.Second

// A disk that fails again within relapse of being called well has to go without a
// failure for longer than the time before: some take a small file and no large
// one, by a quota for instance, and the log is not for each of these turns.
const (
	relapse       = time.Hour
	leastPatience = time.Minute
	mostPatience  = time.Hour
)

// probeSize is what the disk must take to be called well.
const probeSize = 64 << 10

// Degraded returns why nothing is kept at the moment, or nil: the disk is full
// of what others wrote, read-only, or fails. What is in the cache is served all
// the same, and all else passed through.
func (s *Store) Degraded() error { return s.health.ill() }

// ill is nil for an index too that no store has yet.
func (h *health) ill() error {
	if h == nil {
		return nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.cause
}

// refuses returns an error while it is of no use, or not safe, to try a write: a
// disk that is dying takes long to fail, and Badger's mapped files may end the
// process where they cannot be written. A lack of space is not among the
// reasons: statfs knows better, each time.
func (h *health) refuses() error {
	if err := h.ill(); errors.Is(err, unix.EIO) || errors.Is(err, unix.EROFS) {
		return refusedError{err}
	}
	return nil
}

// refusedError is of a write that was not tried. It is no news of the disk.
type refusedError struct{ error }

func (e refusedError) Unwrap() error { return e.error }

// note takes an error into account, and reports whether it is about the disk as
// a whole.
func (h *health) note(err error) bool {
	var refused refusedError
	switch {
	case errors.As(err, &refused):
		return true
	case !isIllness(err):
		return false
	}
	if h.fails(err) {
		h.log.Error("the disk does not take what is fetched: it is passed through without being kept, until the disk is well again",
			"error", err)
	}
	return true
}

// fails reports whether the disk was well until then.
func (h *health) fails(err error) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.failures++
	h.failed = time.Now()
	if h.cause != nil {
		return false
	}
	h.cause, h.since = err, h.failed
	if h.until.IsZero() || h.since.Sub(h.until) > relapse {
		h.patience = 0
	} else {
		h.patience = min(max(2*h.patience, leastPatience), mostPatience)
	}
	return true
}

// noted is how many failures there were.
func (h *health) noted() uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.failures
}

// recovered says that the disk was found well, unless it has failed since there
// had been so many failures, or may do so again.
func (h *health) recovered(failures uint64) {
	h.mu.Lock()
	ends := h.cause != nil && h.failures == failures && time.Since(h.failed) >= h.patience
	took := time.Since(h.since)
	if ends {
		h.cause, h.until = nil, time.Now()
	}
	h.mu.Unlock()
	if ends {
		h.log.Info("the disk takes what is fetched again", "after", took.Round(time.Second))
	}
}

// isIllness tells an error of the disk as a whole from one about a single blob,
// such as that it is larger than the cache.
func isIllness(err error) bool {
	var bound boundError
	if errors.As(err, &bound) {
		return false
	}
	for _, illness := range []error{unix.ENOSPC, unix.EDQUOT, unix.EIO, unix.EROFS} {
		if errors.Is(err, illness) {
			return true
		}
	}
	return false
}

// boundError is ENOSPC by the cache's own bound: the disk may have room.
type boundError struct{ error }

func (e boundError) Unwrap() error { return e.error }

// trouble logs what an error has cost. Where the disk as a whole is why, that is
// said already, and this is for debugging.
func (s *Store) trouble(level slog.Level, text string, err error, args ...any) {
	s.confine(err)
	if s.health.note(err) {
		level = slog.LevelDebug
	}
	s.log.Log(context.Background(), level, text, append(args, "error", err)...)
}

// checkUp finds out whether the disk is well. It asks nothing of a disk that is,
// beside how much space it has.
func (s *Store) checkUp() {
	failures := s.health.noted()
	err := s.lacksRoom()
	if err == nil && s.health.ill() != nil {
		err = s.probe()
	}
	if errors.Is(err, unix.ENOSPC) {
		s.evictOn() // as far as that helps
	}
	if err == nil {
		s.health.recovered(failures)
	} else if !s.health.note(err) {
		s.log.Warn("the disk could not be looked at", "error", err)
	}
}

// lacksRoom returns ENOSPC where others have filled the disk so far that all of
// the cache would not make up for it, and EROFS where it is read-only.
func (s *Store) lacksRoom() error {
	lack, err := s.space.lack()
	if err != nil || lack <= 0 {
		return err
	}
	if evictable := s.evictable(); lack > evictable {
		return fmt.Errorf("%s: others have filled the disk: %d bytes are missing, and the cache could free %d: %w",
			s.layout.dir, lack, evictable, unix.ENOSPC)
	}
	return s.layout.room(0, indexRoom)
}

// probe writes a small file, as a manifest is written, and removes it.
func (s *Store) probe() error {
	disk := s.layout.disk
	f, err := disk.createTemp(filepath.Join(s.layout.dir, "partial"), tmpPrefix)
	if err != nil {
		return err
	}
	err = disk.write(f, make([]byte, probeSize))
	if err == nil {
		err = disk.sync(f)
	}
	return errors.Join(err, f.Close(), disk.remove(f.Name()))
}
