package cache

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

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
	paths := s.layout.partial(f.digest)
	if f.size >= syncLater {
		_ = wait(s.ctx, syncPause) // a store that ends does not wait
	}
	err := s.layout.disk.sync(f.part.data)
	if err == nil {
		err = s.layout.publish(paths.data, f.digest)
	}
	if err != nil {
		s.trouble(slog.LevelError, "a blob was served but not kept", err, "digest", f.digest)
		return errors.Join(diskError{err}, s.discard(f))
	}
	s.setDamaged(f.digest, false)
	if err := errors.Join(f.part.journal.Close(), s.layout.disk.remove(paths.journal)); err != nil {
		s.log.Warn("a journal was left behind", "digest", f.digest, "error", err)
	}
	s.space.give(s.recency.add(f.digest, item{bytes: onDisk(f.size)}, s.opts.Now()))
	if err := s.index.addBlob(f.digest, blobRecord{Size: f.size, Fetched: s.opts.Now()}); err != nil {
		s.trouble(slog.LevelWarn, "a blob was not recorded", err, "digest", f.digest)
	}
	return nil
}

// abandon ends a fill that failed. Its partial stays, to be resumed, where the
// bytes may yet be of use.
func (s *Store) abandon(f *fill, cause error) {
	var disk diskError
	log := s.log.With("digest", f.digest, "error", cause)
	switch {
	case errors.Is(cause, errMismatch):
		log.Error("the upstream sent a blob that does not match its digest; it was dropped")
	case errors.As(cause, &disk):
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
		s.space.give(s.recency.add(f.digest, item{bytes: onDisk(f.size), partial: true}, s.opts.Now()))
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
	paths, disk := s.layout.partial(f.digest), s.layout.disk
	err := errors.Join(f.part.journal.Close(), disk.removeIfThere(paths.journal), disk.removeIfThere(paths.data))
	s.giveBack(f.digest, onDisk(f.size))
	return err
}

// giveBack returns what was taken for a blob that did not come about. Where a
// file of it is there after all, since the disk would not do or undo a step, that
// stays charged, and goes by age.
func (s *Store) giveBack(d digest.Digest, bytes int64) {
	_, noBlob := os.Lstat(s.layout.blob(d))
	_, noPartial := os.Lstat(s.layout.partial(d).data)
	switch {
	case noBlob == nil:
		s.space.give(s.recency.add(d, item{bytes: bytes}, s.opts.Now()))
	case noPartial == nil:
		s.space.give(s.recency.add(d, item{bytes: bytes, partial: true}, s.opts.Now()))
	default:
		it, _ := s.recency.remove(d) // of a file whose place this one was to take
		s.space.give(bytes + it.bytes)
	}
}

// dropPartial removes what cannot be resumed, and returns what it was charged.
func (s *Store) dropPartial(d digest.Digest, charged int64) {
	if charged == 0 {
		return
	}
	left := item{bytes: charged, partial: true}
	if err := s.remove(d, left); err != nil {
		s.log.Warn("a partial that cannot be resumed was left behind", "digest", d, "error", err)
		s.recency.add(d, left, s.opts.Now())
		return
	}
	s.space.give(charged)
}

// putLater is put for when the fill has ended that brings the same bytes as a
// blob. Its caller's work keeps the store open meanwhile.
func (s *Store) putLater(dgst digest.Digest, content []byte, records ...entry) {
	s.work.Go(func() {
		err := errFilling
		for errors.Is(err, errFilling) {
			s.mu.Lock()
			f := s.filling[dgst]
			s.mu.Unlock()
			if f != nil {
				<-f.done
			}
			err = s.put(s.ctx, dgst, content, records...)
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
func (s *Store) put(ctx context.Context, dgst digest.Digest, content []byte, records ...entry) error {
	if err := s.hold(ctx, dgst); err != nil {
		return fmt.Errorf("store %s: %w", dgst, err)
	}
	defer s.unshut(dgst)
	bytes := onDisk(int64(len(content)))
	err := s.placing(ctx, dgst, bytes, func() error {
		if it, _ := s.recency.look(dgst); it.partial {
			s.recency.remove(dgst)
			s.dropPartial(dgst, it.bytes)
		}
		return s.write(dgst, content)
	})
	if err != nil {
		return fmt.Errorf("store %s: %w", dgst, err)
	}
	s.setDamaged(dgst, false)
	s.space.give(s.recency.add(dgst, item{bytes: bytes}, s.opts.Now()))
	return s.index.put(records...)
}

func (s *Store) write(dgst digest.Digest, content []byte) error {
	disk := s.layout.disk
	tmp, err := disk.createTemp(filepath.Join(s.layout.dir, "partial"), tmpPrefix)
	if err != nil {
		return err
	}
	err = disk.write(tmp, content)
	if err == nil {
		err = disk.sync(tmp)
	}
	err = errors.Join(err, tmp.Close())
	if err == nil {
		err = s.layout.publish(tmp.Name(), dgst)
	}
	if err != nil {
		return errors.Join(err, disk.removeIfThere(tmp.Name()))
	}
	return nil
}
