package blobs

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
)

// errFilling says that a fill of the blob runs.
var errFilling = errors.New("a fill of it runs")

// locks say which goroutine may change the files of a blob: one fill, one Put or one removal
// at a time. They also know which blobs are damaged.
type locks struct {
	mu      sync.Mutex // guards what follows
	fills   map[digest.Digest]*queued
	locked  map[digest.Digest]chan struct{} // by a Put or a removal; closed when it is unlocked
	damaged map[digest.Digest]time.Time     // blobs whose files are not served until then; the zero time: until they are found to be right
}

func newLocks() *locks {
	return &locks{
		fills:   make(map[digest.Digest]*queued),
		locked:  make(map[digest.Digest]chan struct{}),
		damaged: make(map[digest.Digest]time.Time),
	}
}

// tryLock locks a digest. It returns false if a fill of it runs, or it is locked.
func (l *locks) tryLock(d digest.Digest) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fills[d] != nil || l.locked[d] != nil {
		return false
	}
	l.locked[d] = make(chan struct{})
	return true
}

// lock waits until it can lock a digest. It does not wait for a fill, which may take as long
// as the upstream likes: then it returns errFilling.
func (l *locks) lock(ctx context.Context, d digest.Digest) error {
	for !l.tryLock(d) {
		if l.fill(d) != nil {
			return errFilling
		}
		if err := l.awaitUnlocked(ctx, d); err != nil {
			return err
		}
	}
	return nil
}

func (l *locks) unlock(d digest.Digest) {
	l.mu.Lock()
	defer l.mu.Unlock()
	close(l.locked[d])
	delete(l.locked, d)
}

// awaitUnlocked waits until a digest is not locked. For a fill that is in the table it stays
// unlocked.
func (l *locks) awaitUnlocked(ctx context.Context, d digest.Digest) error {
	l.mu.Lock()
	locked := l.locked[d]
	l.mu.Unlock()
	if locked == nil {
		return nil
	}
	select {
	case <-locked:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// fill returns the running fill of a blob, or nil.
func (l *locks) fill(d digest.Digest) *queued {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.fills[d]
}

// fillOrNew returns the running fill of a blob, or the one that begin returns.
func (l *locks) fillOrNew(d digest.Digest, begin func() (*queued, error)) (f *queued, isNew bool, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if f := l.fills[d]; f != nil {
		return f, false, nil
	}
	if f, err = begin(); err != nil {
		return nil, false, err
	}
	l.fills[d] = f
	return f, true, nil
}

// filled removes a fill whose outcome is on disk.
func (l *locks) filled(d digest.Digest) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.fills, d)
}

// running lists the fills in no order.
func (l *locks) running() []*queued {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := make([]*queued, 0, len(l.fills))
	for _, f := range l.fills {
		all = append(all, f)
	}
	return slices.Clip(all)
}

// setDamaged marks a blob as damaged until it is checked, or clears its mark. It reports
// whether that is a change.
func (l *locks) setDamaged(d digest.Digest, damaged bool) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	until, marked := l.damaged[d]
	if !damaged {
		delete(l.damaged, d)
		return marked
	}
	l.damaged[d] = time.Time{}
	return !marked || !until.IsZero()
}

// setUnreadable marks a blob as damaged until a time, unless it is marked already.
func (l *locks) setUnreadable(d digest.Digest, until time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.isDamagedLocked(d) {
		l.damaged[d] = until
	}
}

func (l *locks) isDamaged(d digest.Digest) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.isDamagedLocked(d)
}

func (l *locks) isDamagedLocked(d digest.Digest) bool {
	until, marked := l.damaged[d]
	if marked && !until.IsZero() && time.Now().After(until) {
		delete(l.damaged, d)
		return false
	}
	return marked
}

// isServable reports whether the file of a blob may be served: no fill replaces it, and it
// is not damaged.
func (l *locks) isServable(d digest.Digest) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.fills[d] == nil && !l.isDamagedLocked(d)
}

// gate is a mutex that can be waited for with a context.
type gate chan struct{}

func newGate() gate { return make(gate, 1) }

func (g gate) Lock()   { g <- struct{}{} }
func (g gate) Unlock() { <-g }

func (g gate) lock(ctx context.Context) error {
	select {
	case g <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
