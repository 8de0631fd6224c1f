package blobs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"runtime"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/cache/disk"
	"github.com/larder-registry/larder/cache/records"
	"github.com/larder-registry/larder/cache/tasks"
)

const (
	// scrubSeek is what one more file costs a disk, in bytes that it could have read
	// instead. At the default rate it bounds the pass to some 75 files a second.
	scrubSeek = 256 << 10
	// scrubRest comes before each pass: a node that has just started has more important
	// work, and a folder that cannot be read is not tried all the time.
	scrubRest = time.Hour
	// scrubNote is how much of a pass a crash repeats.
	scrubNote = time.Minute
)

// ScrubResult is what a scrub found.
type ScrubResult struct {
	Blobs      int64 `json:"blobs"`      // that were read to their end
	Bytes      int64 `json:"bytes"`      // that were read
	Mismatches int64 `json:"mismatches"` // damaged blobs, which are removed
}

// Scrub reads all blobs, at full speed, and removes those that do not match their digest. It
// calls progress, unless that is nil, with the bytes that it has checked. The background
// pass waits meanwhile, and so does a second call. It returns what it found up to an error,
// which is tasks.ErrClosed if the store was closed.
func (s *Store) Scrub(ctx context.Context, progress func(done, total int64)) (ScrubResult, error) {
	end, err := s.Tasks.Begin()
	if err != nil {
		return ScrubResult{}, err
	}
	defer end()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(s.Tasks.Context(), func() { cancel(tasks.ErrClosed) })()

	if err := s.scrubs.Acquire(ctx, 1); err != nil {
		return ScrubResult{}, fmt.Errorf("scrub: %w", context.Cause(ctx))
	}
	defer s.scrubs.Release(1)
	var total int64
	err = s.Folder.EachBlob("", func(_ digest.Digest, info fs.FileInfo) error {
		total += info.Size()
		return ctx.Err()
	})
	pass := &scrubPass{store: s, ctx: ctx}
	pass.step = func(int) error {
		if progress != nil {
			progress(pass.done, max(pass.done, total)) // blobs that came since then count too
		}
		if s.Tasks.Context().Err() != nil { // ctx ends a moment later
			return tasks.ErrClosed
		}
		return ctx.Err()
	}
	if err == nil {
		err = s.Folder.EachBlob("", pass.visit)
	}
	if err == nil {
		err = pass.step(0)
	}
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		return pass.result, fmt.Errorf("scrub: %w", err)
	}
	return pass.result, nil
}

// KeepScrubbing checks everything once in Settings.ScrubEvery, until the store is closed. It
// has a thread of its own, which lets everybody else's use the disk first.
func (s *Store) KeepScrubbing() {
	runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
	disk.MakeThreadIdle()
	pos := s.Index.ScrubPosition()
	pause := s.untilScrub(pos)
	if pos.AtOnce {
		pause = 0
	}
	ctx := s.Tasks.Context()
	for tasks.Wait(ctx, pause) == nil {
		if err := s.ContinueScrub(ctx, &pos); err != nil && ctx.Err() == nil {
			s.Log.Error("the scrub could not read the cache folder; it continues later", "error", err)
		}
		pause = s.untilScrub(pos)
	}
}

func (s *Store) untilScrub(pos records.ScrubPosition) time.Duration {
	if !pos.Over() {
		return scrubRest
	}
	due := pos.Begun.Add(s.ScrubEvery).Sub(s.Now())
	return max(min(due, s.ScrubEvery), scrubRest) // min: the clock may have been set back
}

// ContinueScrub runs a pass of the background scrub from pos to its end, at the rate of the
// settings, and moves pos on. It records the position once a minute and at its end.
func (s *Store) ContinueScrub(ctx context.Context, pos *records.ScrubPosition) error {
	begun := pos.Begun
	if pos.After == "" {
		begun = s.Now()
	}
	pass := &scrubPass{store: s, ctx: ctx, step: func(n int) error {
		if err := tasks.Wait(ctx, time.Duration(n)*time.Second/time.Duration(s.ScrubRate)); err != nil {
			return err
		}
		if err := s.scrubs.Acquire(ctx, 1); err != nil { // held by Scrub
			return err
		}
		s.scrubs.Release(1)
		return nil
	}}
	noted := time.Now()
	err := s.Folder.EachBlob(pos.After, func(d digest.Digest, info fs.FileInfo) error {
		if err := pass.visit(d, info); err != nil {
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
	if err := s.Index.PutScrubPosition(pos); err != nil {
		s.Trouble(slog.LevelWarn, "the scrub's position was not recorded; a restart repeats some of it", err)
	}
}

// Distrust says that a blob may be damaged: its file has a wrong size, or the disk failed
// while it was read, as it does when a sector has gone bad. The blob counts as missing from
// now on, and is checked in the background: if it is right it is served again, and if it is
// damaged it is removed.
func (s *Store) Distrust(d digest.Digest) {
	if !s.locks.setDamaged(d, true) {
		return
	}
	if err := s.Tasks.Go(func() { s.check(d) }); err != nil {
		s.locks.setDamaged(d, false) // the store is closed
	}
}

// check scrubs one blob. If it is right and has no record, it gets one, so that a wrong size
// in a manifest does not have it checked again.
func (s *Store) check(d digest.Digest) {
	ctx := s.Tasks.Context()
	pass := &scrubPass{store: s, ctx: ctx, step: func(int) error { return ctx.Err() }}
	info, err := os.Lstat(s.Folder.Blob(d))
	switch {
	case err == nil:
		if err = pass.visit(d, info); err == nil && pass.result.Blobs > 0 {
			s.recordSize(d, info)
		}
	case errors.Is(err, fs.ErrNotExist):
		err = nil // it was evicted
		s.locks.setDamaged(d, false)
	}
	if err != nil && ctx.Err() == nil {
		s.Log.Warn("a blob that could not be read could not be checked", "digest", d, "error", err)
	}
}

// Check hashes the file of a blob, and removes it if it is damaged. The error is fs.ErrNotExist if
// the blob is not here any more, and another one if its file cannot be read now.
func (s *Store) Check(ctx context.Context, d digest.Digest) error {
	info, err := os.Lstat(s.Folder.Blob(d))
	if err != nil {
		return err
	}
	pass := &scrubPass{store: s, ctx: ctx, step: func(int) error { return ctx.Err() }}
	switch err = pass.visit(d, info); {
	case err != nil:
		return err
	case pass.unread != nil:
		return fmt.Errorf("check blob %s: %w", d, pass.unread)
	case pass.result.Blobs == 0:
		return fmt.Errorf("blob %s was damaged, or is not here any more: %w", d, fs.ErrNotExist)
	}
	return nil
}

// recordSize records a blob that was found to be right, unless it has a record.
func (s *Store) recordSize(d digest.Digest, info fs.FileInfo) {
	if _, err := s.Index.Blob(d); !errors.Is(err, fs.ErrNotExist) {
		return
	}
	if err := s.Index.PutBlob(d, records.Blob{Size: info.Size(), Fetched: info.ModTime()}); err != nil {
		s.Trouble(slog.LevelWarn, "a blob was not recorded", err, "digest", d)
	}
}
