package disk

import (
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
	"golang.org/x/sys/unix"
)

// Health is what is known of the disk as a whole: whether it takes what the cache
// writes. While it does not, blobs and manifests are passed through. One log line says
// when that begins, and one when it ends. Its methods may be called from several
// goroutines at once.
type Health struct {
	log *slog.Logger

	mu       sync.Mutex // guards what follows
	cause    error      // nil while the disk is healthy
	since    time.Time
	until    time.Time                   // when the failure before this one ended
	failures uint64                      // how many were noted
	failed   time.Time                   // the latest of them
	patience time.Duration               // how long without a failure before the disk counts as healthy
	relapses *backoff.ExponentialBackOff // the patience after each relapse
}

// NewHealth returns the Health of a disk that has not failed yet.
func NewHealth(log *slog.Logger) *Health {
	return &Health{log: log, relapses: &backoff.ExponentialBackOff{
		InitialInterval: leastPatience, Multiplier: 2, MaxInterval: mostPatience,
	}}
}

// A disk that fails again within relapse after it recovered must then go without a
// failure for longer than before: some disks take a small file and no large one, because
// of a quota for example, and the log must not have lines for each of these changes.
const (
	relapse       = time.Hour
	leastPatience = time.Minute
	mostPatience  = time.Hour
)

// Failure returns why the disk does not take what the cache writes, or nil. A nil Health
// is that of a disk that has not failed.
func (h *Health) Failure() error {
	if h == nil {
		return nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.cause
}

// Refuses returns an error while a write is of no use, or not safe: a disk that is dying
// takes long to fail, and Badger's mapped files may end the process if they cannot be
// written. A lack of space is not among the reasons: statfs is asked each time instead.
func (h *Health) Refuses() error {
	if err := h.Failure(); errors.Is(err, unix.EIO) || errors.Is(err, unix.EROFS) {
		return refusedError{err}
	}
	return nil
}

// refusedError is the error of a write that was not tried. It says nothing new about the
// disk.
type refusedError struct{ error }

func (e refusedError) Unwrap() error { return e.error }

// Note takes an error into account, and reports whether it is about the disk as a whole.
func (h *Health) Note(err error) bool {
	var refused refusedError
	switch {
	case errors.As(err, &refused):
		return true
	case !isDiskFailure(err):
		return false
	}
	if h.fail(err) {
		h.log.Error("the disk does not accept writes: blobs are passed through without being kept until it does",
			"error", err)
	}
	return true
}

// fail reports whether the disk was healthy until then.
func (h *Health) fail(err error) bool {
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
		h.relapses.Reset()
	} else {
		h.patience = h.relapses.NextBackOff()
	}
	return true
}

// Failures is how many failures were noted so far.
func (h *Health) Failures() uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.failures
}

// Recovered says that the disk was found healthy by a check that began when Failures
// returned this number. It has no effect if the disk has failed since then, or is likely
// to fail again.
func (h *Health) Recovered(failures uint64) {
	h.mu.Lock()
	ends := h.cause != nil && h.failures == failures && time.Since(h.failed) >= h.patience
	took := time.Since(h.since)
	if ends {
		h.cause, h.until = nil, time.Now()
	}
	h.mu.Unlock()
	if ends {
		h.log.Info("the disk accepts writes again", "after", took.Round(time.Second))
	}
}

// isDiskFailure tells an error of the disk as a whole from one about a single blob, such
// as a blob that is larger than the cache.
func isDiskFailure(err error) bool {
	var bound BoundError
	if errors.As(err, &bound) {
		return false
	}
	for _, failure := range []error{unix.ENOSPC, unix.EDQUOT, unix.EIO, unix.EROFS} {
		if errors.Is(err, failure) {
			return true
		}
	}
	return false
}
