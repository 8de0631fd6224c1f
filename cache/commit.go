package cache

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/larder-registry/larder/cache/disk"
	"github.com/larder-registry/larder/cache/fill"
	"github.com/larder-registry/larder/cache/recency"
	"github.com/larder-registry/larder/cache/records"
	"github.com/opencontainers/go-digest"
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
	err = s.placing(ctx, d, disk.Charge(size), func() error {
		part, err = fill.CreatePartial(s.folder, d, size)
		return err
	})
	return part, err
}

// Commit implements [fill.Store]: sync, rename, sync the folder, record. FORMAT.md says what
// a crash after each step leaves.
func (s *Store) Commit(d digest.Digest, part *fill.Partial) error {
	if part.Size() >= syncLater {
		_ = wait(s.ctx, syncPause) // a store that ends does not wait
	}
	if err := part.Publish(); err != nil {
		s.trouble(slog.LevelError, "a blob was served but not kept", err, "digest", d)
		return errors.Join(fill.DiskError{Err: err}, s.discard(d, part))
	}
	s.setDamaged(d, false)
	if err := part.RemoveJournal(); err != nil {
		s.log.Warn("a journal was left behind", "digest", d, "error", err)
	}
	now := s.opts.Now()
	s.space.Release(s.recency.Add(d, recency.Item{Bytes: disk.Charge(part.Size())}, now))
	if err := s.index.PutBlob(d, records.Blob{Size: part.Size(), Fetched: now}); err != nil {
		s.trouble(slog.LevelWarn, "a blob was not recorded", err, "digest", d)
	}
	return nil
}

// Abandon implements [fill.Store].
func (s *Store) Abandon(d digest.Digest, part *fill.Partial, have int64, cause error) {
	log := s.log.With("digest", d, "error", cause)
	switch fill.ResultOf(cause) {
	case fill.ResultMismatch:
		if errors.Is(cause, fill.ErrMismatch) {
			log.Error("the upstream sent a blob that does not match its digest; it was dropped")
		} else {
			log.Warn("the upstream changed the size of a blob; it was dropped")
		}
	case fill.ResultDisk:
		s.trouble(slog.LevelError, "the cache folder cannot take a blob; it is passed through", cause, "digest", d)
	case fill.ResultMissing, fill.ResultDenied:
		log.Debug("the upstream does not serve a blob")
	default:
		if have == 0 {
			log.Debug("a fill ended with nothing to keep")
			break
		}
		log.Warn("a fill stopped; what is on disk will be resumed", "have", have)
		if err := part.Keep(); err != nil {
			s.log.Warn("a journal may be incomplete", "digest", d, "error", err)
		}
		s.space.Release(s.recency.Add(d, recency.Item{Bytes: disk.Charge(part.Size()), Partial: true}, s.opts.Now()))
		return
	}
	if part != nil {
		if err := s.discard(d, part); err != nil {
			s.trouble(slog.LevelWarn, "a partial was left behind", err, "digest", d)
		}
	}
}

// discard removes a partial.
func (s *Store) discard(d digest.Digest, part *fill.Partial) error {
	err := part.Discard()
	s.giveBack(d, disk.Charge(part.Size()))
	return err
}

// giveBack returns what was taken for a blob that did not come about. Where a
// file of it is there after all, since the disk would not do or undo a step, that
// stays charged, and goes by age.
func (s *Store) giveBack(d digest.Digest, bytes int64) {
	_, noBlob := os.Lstat(s.folder.Blob(d))
	_, noPartial := os.Lstat(s.folder.Partial(d).Data)
	switch {
	case noBlob == nil:
		s.space.Release(s.recency.Add(d, recency.Item{Bytes: bytes}, s.opts.Now()))
	case noPartial == nil:
		s.space.Release(s.recency.Add(d, recency.Item{Bytes: bytes, Partial: true}, s.opts.Now()))
	default:
		it, _ := s.recency.Remove(d) // of a file whose place this one was to take
		s.space.Release(bytes + it.Bytes)
	}
}

// dropPartial removes what cannot be resumed, and returns what it was charged.
func (s *Store) dropPartial(d digest.Digest, charged int64) {
	if charged == 0 {
		return
	}
	left := recency.Item{Bytes: charged, Partial: true}
	if err := s.remove(d, left); err != nil {
		s.log.Warn("a partial that cannot be resumed was left behind", "digest", d, "error", err)
		s.recency.Add(d, left, s.opts.Now())
		return
	}
	s.space.Release(charged)
}

// putLater is put for when the fill has ended that brings the same bytes as a
// blob. Its caller's work keeps the store open meanwhile.
func (s *Store) putLater(dgst digest.Digest, content []byte, record func() error) {
	s.work.Go(func() {
		err := errFilling
		for errors.Is(err, errFilling) {
			s.mu.Lock()
			f := s.filling[dgst]
			s.mu.Unlock()
			if f != nil {
				<-f.Done()
			}
			err = s.put(s.ctx, dgst, content, record)
		}
		if err == nil {
			s.useClosure(dgst)
			s.manifestKept(dgst)
		} else if s.ctx.Err() == nil {
			s.trouble(slog.LevelError, "a manifest was served but not kept", err, "digest", dgst)
		}
	})
}

// put stores a small blob whose digest the caller has checked, and then its
// records. The blob survives a crash once put has returned.
func (s *Store) put(ctx context.Context, dgst digest.Digest, content []byte, record func() error) error {
	if err := s.hold(ctx, dgst); err != nil {
		return fmt.Errorf("store %s: %w", dgst, err)
	}
	defer s.unshut(dgst)
	bytes := disk.Charge(int64(len(content)))
	err := s.placing(ctx, dgst, bytes, func() error {
		if it, _ := s.recency.Get(dgst); it.Partial {
			s.recency.Remove(dgst)
			s.dropPartial(dgst, it.Bytes)
		}
		return s.folder.WriteBlob(dgst, content)
	})
	if err != nil {
		return fmt.Errorf("store %s: %w", dgst, err)
	}
	s.setDamaged(dgst, false)
	s.space.Release(s.recency.Add(dgst, recency.Item{Bytes: bytes}, s.opts.Now()))
	return record()
}
