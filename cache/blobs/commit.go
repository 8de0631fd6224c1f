package blobs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/cache/disk"
	"github.com/larder-registry/larder/cache/fill"
	"github.com/larder-registry/larder/cache/recency"
	"github.com/larder-registry/larder/cache/records"
	"github.com/larder-registry/larder/cache/tasks"
)

// A client asks for its next layer as soon as it has one. A large blob is synced somewhat
// later, so that the sync does not delay the first bytes of the next layer: with layers of
// 32 MiB these came after 5.8 ms rather than 7.9, on two processors.
const (
	syncLater = 4 << 20 // bytes
	syncPause = 50 * time.Millisecond
)

// Reserve implements [fill.Store].
func (s *Store) Reserve(ctx context.Context, d digest.Digest, size int64) (part *fill.Partial, err error) {
	err = s.reserveFor(ctx, d, disk.Charge(size), func() error {
		part, err = fill.CreatePartial(s.Folder, d, size)
		return err
	})
	if err == nil {
		s.noteOpen(d, part)
	}
	return part, err
}

// reserveFor reserves n bytes for a file of a blob, and lets create make it. If a disk quota
// prevents that, the cache keeps below the quota from then on, and it tries once more. It
// also does so if somebody removed the folder for the file.
func (s *Store) reserveFor(ctx context.Context, d digest.Digest, n int64, create func() error) error {
	for again := false; ; again = true {
		if err := s.reserveBlob(ctx, d, n); err != nil {
			return err
		}
		err := create()
		s.Space.Confirm(n)
		if err == nil {
			return nil
		}
		s.releaseUnlessOnDisk(d, n)
		if again || !s.adoptQuota(err) && !s.restoreFolders(err) {
			return err
		}
	}
}

// restoreFolders makes the folders of the cache again, if that is why a file could not be
// created.
func (s *Store) restoreFolders(err error) bool {
	if !disk.IsMissing(err) {
		return false
	}
	if err := s.Folder.Restore(); err != nil {
		s.Log.Error("the cache folder was removed, and cannot be made again", "error", err)
		return false
	}
	return true
}

// Commit implements [fill.Store]: sync, rename, sync the folder, record. FORMAT.md says what
// a crash after each step leaves.
func (s *Store) Commit(d digest.Digest, part *fill.Partial, proven []fill.Source) error {
	if part.Size() >= syncLater {
		_ = tasks.Wait(s.Tasks.Context(), syncPause) // a store that ends does not wait
	}
	s.Came(d, proven)
	if err := part.Publish(); err != nil {
		s.Trouble(slog.LevelError, "a blob was served but not kept", err, "digest", d)
		return errors.Join(fill.DiskError{Err: err}, s.discard(d, part))
	}
	s.locks.setDamaged(d, false)
	s.verifier.trust(d)
	if err := part.RemoveJournal(); err != nil {
		s.Log.Warn("a journal was left behind", "digest", d, "error", err)
	}
	now := s.Now()
	s.opened.publish(d, s.Items.Add(d, recency.Item{Bytes: disk.Charge(part.Size())}, now))
	if err := s.Index.PutBlob(d, records.Blob{Size: part.Size(), Fetched: now}); err != nil {
		s.Trouble(slog.LevelWarn, "a blob was not recorded", err, "digest", d)
	}
	return nil
}

// Abandon implements [fill.Store].
func (s *Store) Abandon(d digest.Digest, part *fill.Partial, have int64, cause error) {
	log := s.Log.With("digest", d, "error", cause)
	switch fill.ResultOf(cause) {
	case fill.ResultMismatch:
		if errors.Is(cause, fill.ErrMismatch) {
			log.Error("the upstream sent a blob that does not match its digest; it was dropped")
		} else {
			log.Warn("the upstream told another size of a blob than its manifest, or than before; it was dropped")
		}
	case fill.ResultDisk:
		s.Trouble(slog.LevelError, "the cache folder cannot take a blob; it is passed through", cause, "digest", d)
	case fill.ResultMissing, fill.ResultDenied:
		log.Debug("the upstream does not serve a blob")
	default:
		if have == 0 {
			log.Debug("a fill ended with nothing to keep")
			break
		}
		log.Warn("a fill stopped; what is on disk will be resumed", "have", have)
		if err := part.Keep(); err != nil {
			s.Log.Warn("a journal may be incomplete", "digest", d, "error", err)
		}
		s.Space.Release(s.Items.Add(d, recency.Item{Bytes: disk.Charge(part.Size()), Partial: true}, s.Now()))
		return
	}
	if part != nil {
		if err := s.discard(d, part); err != nil {
			s.Trouble(slog.LevelWarn, "a partial was left behind", err, "digest", d)
		}
	}
}

// discard removes a partial download.
func (s *Store) discard(d digest.Digest, part *fill.Partial) error {
	err := part.Discard()
	s.releaseUnlessOnDisk(d, disk.Charge(part.Size()))
	return err
}

// releaseUnlessOnDisk releases what was reserved for a blob that did not come about. If a
// failed step left a file, its bytes stay reserved and eviction removes it later.
func (s *Store) releaseUnlessOnDisk(d digest.Digest, bytes int64) {
	_, noBlob := os.Lstat(s.Folder.Blob(d))
	_, noPartial := os.Lstat(s.Folder.Partial(d).Data)
	switch {
	case noBlob == nil:
		s.opened.publish(d, s.Items.Add(d, recency.Item{Bytes: bytes}, s.Now()))
	case noPartial == nil:
		s.Space.Release(s.Items.Add(d, recency.Item{Bytes: bytes, Partial: true}, s.Now()))
	default:
		it, _ := s.Items.Remove(d) // a file that this one was to replace
		s.opened.remove(d, true, bytes)
		s.opened.remove(d, false, it.Bytes)
	}
}

// Put stores a small blob whose digest the caller has checked, and then calls record. The
// blob survives a crash once Put has returned. While a fill of the blob runs it returns an
// error for which IsFilling is true.
func (s *Store) Put(ctx context.Context, d digest.Digest, content []byte, record func() error) error {
	if err := s.locks.lock(ctx, d); err != nil {
		return fmt.Errorf("store %s: %w", d, err)
	}
	defer s.locks.unlock(d)
	bytes := disk.Charge(int64(len(content)))
	err := s.reserveFor(ctx, d, bytes, func() error {
		if it, _ := s.Items.Get(d); it.Partial {
			s.Items.Remove(d)
			s.removePartial(d, it.Bytes)
		}
		return s.Folder.WriteBlob(d, content)
	})
	if err != nil {
		return fmt.Errorf("store %s: %w", d, err)
	}
	s.locks.setDamaged(d, false)
	s.verifier.trust(d)
	s.opened.remove(d, false, s.Items.Add(d, recency.Item{Bytes: bytes}, s.Now()))
	return record()
}

// IsFilling reports whether an error says that a fill of the blob runs.
func IsFilling(err error) bool { return errors.Is(err, errFilling) }

// PutAfterFill is Put that waits while a fill of the blob runs, and no longer than ctx.
func (s *Store) PutAfterFill(ctx context.Context, d digest.Digest, raw []byte, record func() error) error {
	for {
		err := s.Put(ctx, d, raw, record)
		if !IsFilling(err) {
			return err
		}
		if err := s.AwaitFill(ctx, d); err != nil {
			return fmt.Errorf("store %s: wait for the fill that brings it: %w", d, err)
		}
	}
}

// AwaitFill waits until no fill of a blob runs. The error is that of ctx.
func (s *Store) AwaitFill(ctx context.Context, d digest.Digest) error {
	f := s.locks.fill(d)
	if f == nil {
		return nil
	}
	select {
	case <-f.Done():
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
