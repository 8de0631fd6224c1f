package cache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
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

// saved is what is known of the latest snapshot.
type saved struct {
	mu      sync.Mutex // held by the one who writes a snapshot, during I/O; guards what follows and index.format
	changes int64      // index.changes before the latest one; -1 for none of this process
	failed  bool       // and that was said
}

// saveSnapshot writes a snapshot if anything changed since the last one.
func (s *Store) saveSnapshot(ctx context.Context) {
	s.saved.mu.Lock()
	defer s.saved.mu.Unlock()
	changes := s.index.changes.Load()
	if s.index.volatile || changes == s.saved.changes {
		return
	}
	err := s.writeSnapshot(ctx)
	switch {
	case err == nil:
		s.saved.changes, s.saved.failed = changes, false
	case ctx.Err() != nil: // Close tries again
	case !s.saved.failed:
		s.saved.failed = true
		s.trouble(slog.LevelWarn, "the snapshot of the index could not be written; an older one stays", err)
	}
}

// writeSnapshot replaces the snapshot. The old one stays until the new one is
// durable. FORMAT.md says what a crash after each step leaves. The caller holds
// s.saved.mu.
func (s *Store) writeSnapshot(ctx context.Context) error {
	// The number goes first: an index that does not have it has lost records that
	// the snapshot has.
	s.index.format.Snapshot++
	if err := s.index.putFormat(); err != nil {
		return err
	}
	path := s.folder.NewSnapshot()
	f, err := s.folder.Create(path, os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	out := &roomyFile{store: s, ctx: ctx, file: f}
	err = s.index.writeSnapshot(out, s.index.format.Snapshot, ctx.Err)
	if err == nil {
		err = out.flush()
	}
	if err == nil {
		err = s.folder.Sync(f)
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = s.folder.Rename(path, s.folder.Snapshot())
	}
	if err == nil {
		err = errors.Join(s.folder.SyncDir(s.folder.Dir()), s.space.Measure())
	} else {
		err = errors.Join(err, s.folder.RemoveIfExists(path))
	}
	s.space.Confirm(out.taken)
	s.space.Release(out.taken) // it counts with the index now
	return err
}

// roomyFile takes the space for a file as it grows, and evicts for it if need
// be.
type roomyFile struct {
	store *Store
	ctx   context.Context
	file  *os.File
	buf   bytes.Buffer
	taken int64
}

// roomStep is how many bytes are taken, and written, at a time.
const roomStep = 1 << 20

func (r *roomyFile) Write(p []byte) (int, error) {
	r.buf.Write(p)
	if r.buf.Len() >= roomStep {
		return len(p), r.flush()
	}
	return len(p), nil
}

func (r *roomyFile) flush() error {
	n := disk.Charge(int64(r.buf.Len()))
	if err := r.store.reserve(r.ctx, n); err != nil {
		return fmt.Errorf("take space for it: %w", err)
	}
	r.taken += n
	defer r.buf.Reset()
	return r.store.folder.Write(r.file, r.buf.Bytes())
}
