package blobs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/cache/disk"
	"github.com/larder-registry/larder/cache/fill"
	"github.com/larder-registry/larder/cache/recency"
)

// Open opens a blob: from disk, or by joining the fill that brings it, which it starts if
// there is none. It blocks until the size is known. The digest must be valid.
//
// A fill has the sources of all clients that wait for it, and uses one at a time: see
// [fill.Fill.Open].
//
// A blob on disk is served when the source's Member says that its repository has it.
//
// A blob for which there is no space is passed through: see [Blob.Begin].
//
// A file that cannot be opened counts as missing, and so does one of another size than the
// blob's. Reads return an error if the content turns out not to match its digest, and never
// its last byte.
func (s *Store) Open(ctx context.Context, d digest.Digest, source fill.Source) (*Blob, error) {
	if blob := s.pass(ctx, d, source); blob != nil {
		return blob, nil
	}
	for retried := false; ; {
		f, own, file, err := s.find(ctx, d, source, fill.New)
		if err != nil {
			return nil, fmt.Errorf("open blob %s: %w", d, err)
		}
		if file != nil {
			if err := prove(ctx, source); err != nil {
				return nil, errors.Join(fmt.Errorf("open blob %s: %w", d, err), file.Close())
			}
			s.Items.Use(d, s.Now())
			return file, nil
		}
		if !own {
			s.slots.share(f.ticket, source.Upstream)
		}
		r, err := f.Open(ctx, source, own)
		switch {
		case err == nil:
			return newBlob(r), nil
		case errors.Is(err, fill.ErrOver): // the next look finds the file, or starts another fill
		case own, retried, ctx.Err() != nil, errors.Is(err, fill.ErrMismatch):
			return nil, err
		default: // the source of another client failed, perhaps of another registry: this client's own may not
			retried = true
		}
	}
}

const (
	// memoryPassed is how many blobs are remembered that were passed through.
	memoryPassed = 256
	// passedQuiet is how long nothing more is logged about one of them: a client that reads in
	// pieces asks for each.
	passedQuiet = 10 * time.Minute
)

// pass returns a blob whose space could not be reserved, as far as that is known before a fill
// has tried. A fill would ask the source for the beginning of the blob, for each range that a
// client reads of it. Nil means that a fill is to find out.
func (s *Store) pass(ctx context.Context, d digest.Digest, source fill.Source) *Blob {
	if source.Size <= 0 || s.IsHereOrComing(d) {
		return nil
	}
	err := s.checkReservable(disk.Charge(source.Size))
	if err == nil {
		return nil
	}
	last, known := s.passed.Get(d)
	if now := s.Now(); !known || now.Sub(last) > passedQuiet {
		s.passed.Add(d, now)
		s.Trouble(slog.LevelError, "the cache folder cannot take a blob; it is passed through", err, "digest", d)
	}
	return newBlob(fill.NewPassing(ctx, &s.Fill, d, source))
}

// Fetch brings a blob to disk for a caller that does not read it, and returns how many bytes
// had to be fetched, 0 if it was there. See [fill.Fill.Fetch]. The error says why the blob could
// not be kept, such as a full disk. The digest must be valid.
func (s *Store) Fetch(ctx context.Context, d digest.Digest, source fill.Source) (fetched int64, err error) {
	attended := fill.IsAttended(ctx)
	begin := func(ctx context.Context, set *fill.Settings, d digest.Digest, source fill.Source, began time.Time) *fill.Fill {
		return fill.NewFetch(ctx, set, d, source, began, attended)
	}
	for retried := false; ; {
		f, own, file, err := s.find(ctx, d, source, begin)
		if err != nil {
			return 0, fmt.Errorf("fetch blob %s: %w", d, err)
		}
		if file != nil {
			s.Items.Use(d, s.Now())
			return 0, errors.Join(prove(ctx, source), file.Close())
		}
		if !own {
			s.slots.share(f.ticket, source.Upstream)
		}
		fetched, err := f.Fetch(ctx, source, own)
		switch {
		case err == nil:
			return fetched, prove(ctx, source)
		case errors.Is(err, fill.ErrOver): // the next look finds the file, or starts another fill
		case own, retried, ctx.Err() != nil:
			return 0, err
		default: // the failure may be that of another caller's source
			retried = true
		}
	}
}

// prove returns nil if the clients of a source may have a blob that is complete.
func prove(ctx context.Context, source fill.Source) error {
	if source.Member == nil {
		return nil
	}
	return source.Member.Prove(ctx)
}

// find returns the file of a complete blob, or else its fill, which begin makes if there is
// none, and whether the fill starts with this request. It looks for the fill first: a fill
// leaves the table only when its outcome is on disk, so a blob is always found in one of the
// two places.
func (s *Store) find(ctx context.Context, d digest.Digest, source fill.Source, begin newFill) (f *queued, own bool, file *Blob, err error) {
	if f := s.locks.fill(d); f != nil {
		return f, false, nil, nil
	}
	if !s.locks.isDamaged(d) {
		file, err = s.open(d, source.Size)
		if err == nil {
			if err = s.verify(ctx, d); err == nil {
				return nil, false, file, nil
			}
			err = errors.Join(err, file.Close())
			if ctx.Err() != nil {
				return nil, false, nil, err
			}
		}
		s.noteUnreadable(d, err)
	}
	f, own, err = s.locks.fillOrNew(d, func() (*queued, error) {
		f := &queued{
			Fill:   begin(s.Tasks.ContextFor(ctx), &s.Fill, d, source, s.Now()),
			ticket: s.slots.enqueue(source.Upstream),
		}
		err := s.Tasks.Go(func() { s.run(f, d, source.Size) })
		if err != nil {
			s.slots.release(f.ticket)
		}
		return f, err
	})
	return f, own, nil, err
}

// IsFilling reports whether a fill of a blob runs. It returns at once.
func (s *Store) IsFilling(d digest.Digest) bool { return s.locks.fill(d) != nil }

// newFill makes a fill: [fill.New], or [fill.NewFetch].
type newFill func(ctx context.Context, set *fill.Settings, d digest.Digest, source fill.Source, began time.Time) *fill.Fill

// OpenFile opens the file of a complete blob, and returns nil if it cannot be served from
// it. It does not count as a use. size is what the blob's manifest says, or -1; it saves a
// look at the index. The digest must be valid.
func (s *Store) OpenFile(d digest.Digest, size int64) *Blob {
	if !s.locks.isServable(d) || !s.verifier.trusts(d) {
		return nil
	}
	blob, err := s.open(d, size)
	if err != nil {
		return nil // Open finds out why
	}
	return blob
}

// OpenHere opens the file of a complete blob. It counts as no use. The error is fs.ErrNotExist
// if there is none, or if it is known to be damaged. The digest must be valid.
func (s *Store) OpenHere(d digest.Digest) (*Blob, error) {
	if s.locks.isDamaged(d) {
		return nil, fmt.Errorf("blob %s is damaged: %w", d, fs.ErrNotExist)
	}
	return s.open(d, 0)
}

// open opens the file of a complete blob. expected is the size that a manifest tells, if it
// is positive. If the file has that size, the index is not asked. A file of a wrong size is
// fs.ErrNotExist, and is checked in the background.
func (s *Store) open(d digest.Digest, expected int64) (*Blob, error) {
	blob, _, err := s.openFile(d)
	if err != nil {
		return nil, err
	}
	if blob.Size != expected && !s.isRightSize(d, blob.Size, expected) {
		s.Distrust(d)
		return nil, errors.Join(fmt.Errorf("blob %s has %d bytes on disk, which is not its size: %w", d, blob.Size, fs.ErrNotExist), blob.Close())
	}
	return blob, nil
}

// openFile opens the file of a blob, whatever is in it.
func (s *Store) openFile(d digest.Digest) (*Blob, *os.File, error) {
	open := s.opened.open(d, false)
	file, info, err := s.Folder.OpenBlob(d)
	if err != nil {
		s.opened.close(open)
		return nil, nil, err
	}
	return &Blob{ReadSeeker: file, Size: info.Size(), State: Hit, opened: s.opened, file: open}, file, nil
}

// retryUnreadable is how long a blob counts as missing after its file could not be opened:
// the reason may be this process's own, such as too many open files.
const retryUnreadable = 5 * time.Second

// noteUnreadable has a blob be fetched again, or passed through, whose file could not be
// opened for another reason than that it does not exist, or whose content is wrong.
func (s *Store) noteUnreadable(d digest.Digest, err error) {
	switch {
	case errors.Is(err, fs.ErrNotExist), s.Tasks.Context().Err() != nil:
	case disk.IsReadError(err), errors.Is(err, fill.ErrMismatch):
		s.Distrust(d)
	default:
		s.locks.setUnreadable(d, time.Now().Add(retryUnreadable))
		s.Log.Warn("a blob in the cache cannot be opened; it is fetched again, or passed through", "digest", d, "error", err)
	}
}

// run runs a fill from its beginning to its outcome on disk. size is the blob's by the first
// client's manifest, or 0.
func (s *Store) run(f *queued, d digest.Digest, size int64) {
	began := time.Now()
	s.Counts.Waiting.Add(1)
	err := s.slots.wait(f.Context(), f.ticket)
	s.Counts.Waiting.Add(-1)
	s.Counts.FillBegins(d)
	var old *fill.Partial
	if err == nil {
		old, err = s.resume(f.Context(), d, size)
	}
	err = f.Run(old, err)
	s.locks.filled(d)
	if err == nil {
		s.Kept(d)
	}
	s.count(d, err, time.Since(began))
	s.slots.release(f.ticket)
	f.End()
}

func (s *Store) count(d digest.Digest, err error, took time.Duration) {
	switch {
	case errors.Is(err, fill.ErrOver):
		s.Counts.FillEnds("", took)
		return
	case errors.Is(err, fill.ErrMismatch):
		s.Counts.Mismatches.Add(1)
	}
	if fill.ResultOf(err) == fill.ResultMismatch {
		s.Mismatched(d)
	}
	s.Counts.FillEnds(fill.ResultOf(err), took)
}

// resume waits until no other goroutine changes the files of a blob, and opens what an
// earlier process left of it, or nil. A partial of another size than a manifest tells is of no
// use. The error is [fill.ErrOver] if the blob is complete.
func (s *Store) resume(ctx context.Context, d digest.Digest, size int64) (*fill.Partial, error) {
	if err := s.locks.awaitUnlocked(ctx, d); err != nil {
		return nil, err
	}
	if _, err := s.Stat(d); err == nil {
		return nil, fill.ErrOver
	}
	if mayWrite := s.Health.Refuses() == nil; !mayWrite {
		return nil, nil // what is on disk stays there
	}
	reserved := s.takePartial(ctx, d)
	part, _ := fill.ResumePartial(s.Folder, d) // an error means that it cannot be resumed
	if part != nil && size > 0 && part.Size() != size {
		if err := part.Close(); err != nil {
			s.Log.Warn("a partial of another size than the manifest's was not closed", "digest", d, "error", err)
		}
		part = nil
	}
	if part == nil {
		s.removePartial(d, reserved)
	} else {
		s.Space.Add(disk.Charge(part.Size()) - reserved) // 0, unless the scan did not see it
		s.noteOpen(d, part)
	}
	return part, nil
}

// takePartial takes a partial download out of the order of eviction, and returns how many
// bytes are reserved for it. It waits until the folder is loaded.
func (s *Store) takePartial(ctx context.Context, d digest.Digest) (reserved int64) {
	select {
	case <-s.loaded:
	case <-ctx.Done():
		return 0
	}
	it, _ := s.Items.Get(d)
	if it.Partial {
		s.Items.Remove(d)
		return it.Bytes
	}
	return 0
}

// removePartial removes a partial download that cannot be resumed, and releases what is
// reserved for it.
func (s *Store) removePartial(d digest.Digest, reserved int64) {
	if reserved == 0 {
		return
	}
	left := recency.Item{Bytes: reserved, Partial: true}
	if err := s.remove(d, left); err != nil {
		s.Log.Warn("a partial that cannot be resumed was left behind", "digest", d, "error", err)
		s.Items.Add(d, left, s.Now())
		return
	}
	s.opened.remove(d, true, reserved)
}

// noteOpen counts the file of a partial as open until its fill and all of their readers have
// closed it.
func (s *Store) noteOpen(d digest.Digest, part *fill.Partial) {
	file := s.opened.open(d, true)
	part.Closed = func() { s.opened.close(file) }
}
