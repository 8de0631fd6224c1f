package cache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/larder-registry/larder/cache/disk"
	"github.com/larder-registry/larder/cache/fill"
	"github.com/larder-registry/larder/cache/records"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

const (
	// scrubEvery is how often everything is looked at, unless the options say.
	scrubEvery = 7 * 24 * time.Hour
	// scrubRate bounds the background pass, unless the options say; see there.
	scrubRate = 20_000_000
	// scrubSeek is what one more file costs a disk, in bytes that it could have
	// read instead. At scrubRate it bounds the pass to some 75 files a second.
	scrubSeek = 256 << 10
	// scrubRest comes before each pass: a node that has just started has better
	// things to do, and a folder that cannot be read is not asked all the time.
	scrubRest = time.Hour
	// scrubNote is how much of a pass a crash repeats.
	scrubNote = time.Minute
)

// ScrubResult is what a scrub found.
type ScrubResult struct {
	Blobs      int64 `json:"blobs"`      // that were read to their end
	Bytes      int64 `json:"bytes"`      // that were read
	Mismatches int64 `json:"mismatches"` // blobs that were damaged, and are removed
}

// Scrub reads all blobs, at full speed, and removes those that do not match
// their digest. It calls progress, unless that is nil, with the bytes that it
// is through with. The background pass waits meanwhile, and so does a second
// call. It returns what it found up to an error, which is ErrClosed where the
// store was closed.
func (s *Store) Scrub(ctx context.Context, progress func(done, total int64)) (ScrubResult, error) {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return ScrubResult{}, ErrClosed
	}
	s.work.Add(1) // before Close begins to wait
	s.mu.Unlock()
	defer s.work.Done()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(s.ctx, func() { cancel(ErrClosed) })()

	if err := s.scrubs.Acquire(ctx, 1); err != nil {
		return ScrubResult{}, fmt.Errorf("scrub: %w", context.Cause(ctx))
	}
	defer s.scrubs.Release(1)
	var total int64
	err := s.folder.EachBlob("", func(_ digest.Digest, info fs.FileInfo) error {
		total += info.Size()
		return ctx.Err()
	})
	run := &scrub{store: s, ctx: ctx}
	run.step = func(int) error {
		if progress != nil {
			progress(run.done, max(run.done, total)) // what came since then counts too
		}
		return ctx.Err()
	}
	if err == nil {
		err = s.folder.EachBlob("", run.visit)
	}
	if err == nil {
		err = run.step(0)
	}
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		return run.result, fmt.Errorf("scrub: %w", err)
	}
	return run.result, nil
}

// scrubAlong looks at everything once in Options.ScrubEvery, until the store is
// closed. It has a thread of its own, which yields the disk to anybody else's.
func (s *Store) scrubAlong() {
	runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
	disk.MakeThreadIdle()
	pos := s.index.ScrubPosition()
	pause := s.untilScrub(pos)
	if pos.AtOnce {
		pause = 0
	}
	for wait(s.ctx, pause) == nil {
		if err := s.scrubFrom(&pos); err != nil && s.ctx.Err() == nil {
			s.log.Error("the scrub could not read the cache folder; it goes on later", "error", err)
		}
		pause = s.untilScrub(pos)
	}
}

func (s *Store) untilScrub(pos records.ScrubPosition) time.Duration {
	if !pos.Over() {
		return scrubRest
	}
	due := pos.Begun.Add(s.opts.ScrubEvery).Sub(s.opts.Now())
	return max(min(due, s.opts.ScrubEvery), scrubRest) // min: the clock may have been set back
}

// scrubFrom takes a pass from pos to its end, and moves pos on.
func (s *Store) scrubFrom(pos *records.ScrubPosition) error {
	begun := pos.Begun
	if pos.After == "" {
		begun = s.opts.Now()
	}
	run := &scrub{store: s, ctx: s.ctx, step: func(n int) error {
		if err := wait(s.ctx, time.Duration(n)*time.Second/time.Duration(s.opts.ScrubRate)); err != nil {
			return err
		}
		if err := s.scrubs.Acquire(s.ctx, 1); err != nil { // held by Scrub
			return err
		}
		s.scrubs.Release(1)
		return nil
	}}
	noted := time.Now()
	err := s.folder.EachBlob(pos.After, func(d digest.Digest, info fs.FileInfo) error {
		if err := run.visit(d, info); err != nil {
			return err
		}
		*pos = records.ScrubPosition{After: d, Begun: begun, AtOnce: pos.AtOnce}
		if time.Since(noted) >= scrubNote {
			noted = time.Now()
			s.noteScrub(*pos)
		}
		return nil
	})
	if err == nil {
		*pos = records.ScrubPosition{Begun: begun}
	}
	s.noteScrub(*pos)
	return err
}

func (s *Store) noteScrub(pos records.ScrubPosition) {
	if err := s.index.PutScrubPosition(pos); err != nil {
		s.trouble(slog.LevelWarn, "the scrub's position was not recorded; a restart repeats some of it", err)
	}
}

// scrub is one pass. It belongs to one goroutine, and holds no lock while it
// reads.
type scrub struct {
	store  *Store
	ctx    context.Context
	step   func(n int) error // after n bytes, or what costs as much; an error ends the pass
	done   int64             // bytes read or passed over
	result ScrubResult
}

// visit looks at a blob, and removes it where it is damaged. That it cannot be
// read for another reason does not end the pass.
func (c *scrub) visit(d digest.Digest, info fs.FileInfo) error {
	if err := c.step(scrubSeek); err != nil {
		return err
	}
	after := c.done + info.Size()
	defer func() { c.done = after }()
	file, err := os.Open(c.store.folder.Blob(d))
	if err == nil {
		// It stays open until drop is done: no new file can be taken for it.
		defer file.Close()
		err = c.verify(d, info.Size(), disk.Cold(file))
	}
	switch {
	case c.ctx.Err() != nil:
		return c.ctx.Err()
	case err == nil:
		c.result.Blobs++
		c.store.setDamaged(d, false)
	case errors.Is(err, fs.ErrNotExist): // it was evicted meanwhile
	case errors.Is(err, fill.ErrMismatch), errors.Is(err, unix.EIO):
		return c.drop(d, info, err)
	default:
		c.store.log.Warn("a blob in the cache could not be checked", "digest", d, "error", err)
	}
	return nil
}

// verify returns fill.ErrMismatch where the content, or its size, is another one than
// it was.
func (c *scrub) verify(d digest.Digest, size int64, content io.Reader) error {
	// Of what a snapshot told of, the size is not known until rebuild comes to it.
	if rec, err := c.store.index.Blob(d); err == nil && rec.Size > 0 && rec.Size != size {
		return fmt.Errorf("%d bytes instead of %d: %w", size, rec.Size, fill.ErrMismatch)
	}
	buf := disk.Buffer()
	defer disk.FreeBuffer(buf)
	hash := d.Algorithm().Hash()
	for {
		n, err := content.Read(*buf)
		hash.Write((*buf)[:n])
		c.done += int64(n)
		c.result.Bytes += int64(n)
		c.store.metrics.scrubbed(n)
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		if err := c.step(n); err != nil {
			return err
		}
	}
	if digest.NewDigest(d.Algorithm(), hash) != d {
		return fill.ErrMismatch
	}
	return nil
}

// drop removes a damaged blob, so that the next request fetches it anew.
func (c *scrub) drop(d digest.Digest, seen fs.FileInfo, damage error) error {
	select {
	case <-c.store.scanned:
	case <-c.ctx.Done():
		return c.ctx.Err()
	}
	gone, err := c.store.dropFile(d, seen)
	if err == nil && !gone {
		return nil
	}
	c.result.Mismatches++
	c.store.metrics.damaged()
	log := c.store.log.With("digest", d, "damage", damage)
	if err != nil {
		c.store.setDamaged(d, true)
		log.Error("a blob in the cache is damaged, and could not be removed; it is not served any more", "error", err)
		return nil
	}
	again := "when it is asked for"
	if c.store.pinned.holds(d) {
		again = "now, because it is pinned"
		c.store.wantLacking()
	}
	log.Error("a blob in the cache was damaged; it was removed, and is fetched again " + again)
	return nil
}

// dropFile removes a blob as an eviction does, if it still is the file that was
// seen and no fill of it runs. A power cut does not bring it back, as it may one
// that is evicted.
func (s *Store) dropFile(d digest.Digest, seen fs.FileInfo) (gone bool, err error) {
	s.evicting.Lock()
	defer s.evicting.Unlock()
	if !s.shut(d) {
		return false, nil
	}
	defer s.unshut(d)
	info, err := os.Lstat(s.folder.Blob(d))
	if err != nil || !os.SameFile(seen, info) {
		return false, disk.IgnoreMissing(err)
	}
	it, known := s.recency.Remove(d)
	if s.pinned.holds(d) {
		err = s.removeContent(d)
	} else {
		err = s.remove(d, it)
	}
	if err != nil {
		if known {
			s.recency.Add(d, it, s.opts.Now())
		}
		return false, err
	}
	s.space.Release(it.Bytes)
	if err := s.folder.SyncDir(filepath.Dir(s.folder.Blob(d))); err != nil {
		s.log.Warn("a power cut may bring a damaged blob back", "digest", d, "error", err)
	}
	return true, nil
}

// wait pauses for d or until the context ends.
func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
