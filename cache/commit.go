package cache

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"time"

	"github.com/larder-registry/larder/cache/disk"
	"github.com/larder-registry/larder/cache/recency"
	"github.com/larder-registry/larder/cache/records"
	"github.com/opencontainers/go-digest"
)

// A client asks for its next layer as soon as it has one. A large blob is synced
// somewhat later, so that it does not hold up the first bytes of that: with layers of
// 32 MiB they came after 5.8 ms rather than 7.9, with two processors.
const (
	syncLater = 4 << 20 // bytes
	syncPause = 50 * time.Millisecond
)

// commit makes a verified fill a blob: sync, rename, sync the folder, record.
// FORMAT.md says what a crash after each step leaves. Clients have had the last
// byte already and read on from the same file; an error here costs only the
// caching.
func (s *Store) commit(f *fill) error {
	paths := s.folder.Partial(f.digest)
	if f.size >= syncLater {
		_ = wait(s.ctx, syncPause) // a store that ends does not wait
	}
	err := s.folder.Sync(f.part.data)
	if err == nil {
		err = s.folder.Publish(paths.Data, f.digest)
	}
	if err != nil {
		s.trouble(slog.LevelError, "a blob was served but not kept", err, "digest", f.digest)
		return errors.Join(diskError{err}, s.discard(f))
	}
	s.setDamaged(f.digest, false)
	if err := errors.Join(f.part.journal.Close(), s.folder.Remove(paths.Journal)); err != nil {
		s.log.Warn("a journal was left behind", "digest", f.digest, "error", err)
	}
	s.space.Release(s.recency.Add(f.digest, recency.Item{Bytes: disk.Charge(f.size)}, s.opts.Now()))
	if err := s.index.PutBlob(f.digest, records.Blob{Size: f.size, Fetched: s.opts.Now()}); err != nil {
		s.trouble(slog.LevelWarn, "a blob was not recorded", err, "digest", f.digest)
	}
	return nil
}

// abandon ends a fill that failed. Its partial stays, to be resumed, where the
// bytes may yet be of use.
func (s *Store) abandon(f *fill, cause error) {
	var ofDisk diskError
	log := s.log.With("digest", f.digest, "error", cause)
	switch {
	case errors.Is(cause, errMismatch):
		log.Error("the upstream sent a blob that does not match its digest; it was dropped")
	case errors.As(cause, &ofDisk):
		s.trouble(slog.LevelError, "the cache folder cannot take a blob; it is passed through", cause, "digest", f.digest)
	case errors.Is(cause, errChanged):
		log.Warn("the upstream changed its mind about a blob; it was dropped")
	case errors.Is(cause, fs.ErrNotExist), errors.Is(cause, fs.ErrPermission), f.segs.untouched():
		log.Debug("a fill ended with nothing to keep")
	default:
		log.Warn("a fill stopped; what is on disk will be resumed", "have", f.front)
		if err := f.part.journal.Close(); err != nil {
			s.log.Warn("a journal may be incomplete", "digest", f.digest, "error", err)
		}
		s.space.Release(s.recency.Add(f.digest, recency.Item{Bytes: disk.Charge(f.size), Partial: true}, s.opts.Now()))
		return
	}
	if f.part != nil {
		if err := s.discard(f); err != nil {
			s.trouble(slog.LevelWarn, "a partial was left behind", err, "digest", f.digest)
		}
	}
}

// discard removes a partial. Readers keep the open file.
func (s *Store) discard(f *fill) error {
	paths := s.folder.Partial(f.digest)
	err := errors.Join(f.part.journal.Close(), s.folder.RemoveIfExists(paths.Journal), s.folder.RemoveIfExists(paths.Data))
	s.giveBack(f.digest, disk.Charge(f.size))
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
				<-f.done
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
