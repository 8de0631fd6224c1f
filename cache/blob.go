package cache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/larder-registry/larder/cache/disk"
	"github.com/larder-registry/larder/cache/fill"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

// State says how an answer came about.
type State string

// What the X-Cache header says: served from here; fetched for this answer;
// served from here although the upstream could not confirm it; passed through
// without being kept.
const (
	Hit    State = "HIT"
	Miss   State = "MISS"
	Stale  State = "STALE"
	Bypass State = "BYPASS"
)

// Blob is an open blob. It belongs to one request, which closes it.
type Blob struct {
	// A complete blob is an *os.File here, so that the kernel can copy it to a
	// socket, unless it has a Content. Otherwise reads block until the bytes arrive,
	// or until the context given to [Store.Open] ends.
	io.ReadSeekCloser
	// Content is a small blob's bytes, where they are in memory. They must not be
	// changed.
	Content []byte
	Size    int64
	State   State
}

// Err returns what cut the reading short, such as content that did not verify. The client
// must not take what it got for the whole.
func (b *Blob) Err() error {
	if r, ok := b.ReadSeekCloser.(*fill.Reader); ok {
		return r.Err()
	}
	return nil
}

// Open opens a blob: from disk, or by joining the fill that brings it, which it begins if
// there is none. It blocks until the size is known. The caller has asked [Store.Holds]
// whether the client may have the blob. hint is the size if it is known from a manifest,
// else 0; it only saves a request.
//
// Reads return an error if the content turns out not to match its digest, and never its
// last byte.
func (s *Store) Open(ctx context.Context, dgst digest.Digest, hint int64, fetch Fetch) (*Blob, error) {
	if err := CheckDigest(dgst); err != nil {
		return nil, fmt.Errorf("open blob %q: %w", dgst, err)
	}
	if dgst == emptySHA256 || dgst == emptySHA512 {
		return &Blob{ReadSeekCloser: noFile{bytes.NewReader(nil)}, State: Hit}, nil
	}
	for joined := false; ; joined = true {
		f, own, file, err := s.find(ctx, dgst, hint, fetch)
		if err != nil {
			return nil, fmt.Errorf("open blob %s: %w", dgst, err)
		}
		if file != nil {
			s.recency.Use(dgst, s.opts.Now())
			return hit(file)
		}
		r, err := f.Open(ctx, own)
		switch {
		case err == nil:
			return newBlob(r), nil
		case errors.Is(err, fill.ErrOver): // the next look finds the file, or begins another fill
		case own, joined, ctx.Err() != nil, errors.Is(err, fill.ErrMismatch):
			return nil, err
		default: // the source of another client failed, perhaps of another registry: this client's own may not
		}
	}
}

// newBlob returns a blob that is read from its fill.
func newBlob(r *fill.Reader) *Blob {
	state := Miss
	if r.PassesThrough() {
		state = Bypass
	}
	return &Blob{ReadSeekCloser: r, Size: r.Size(), State: state}
}

// The blob without bytes needs neither a disk nor a source.
const (
	emptySHA256 = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	emptySHA512 = "sha512:cf83e1357eefb8bdf1542850d66d8007d620e4050b5715dc83f4a921d36ce9ce" +
		"47d0d13c5d85f2b0ff8318d2877eec2f63b931bd47417a81a538327af927da3e"
)

// find returns the file of a complete blob, or else its fill, and whether the fill begins
// with this request. It looks for the fill first: a fill leaves the map only when its
// outcome is on disk, so a blob is always found in one of the two places.
func (s *Store) find(ctx context.Context, dgst digest.Digest, hint int64, fetch Fetch) (f *fill.Fill, own bool, file *os.File, err error) {
	s.mu.Lock()
	f = s.filling[dgst]
	damaged := s.damaged[dgst]
	s.mu.Unlock()
	if f != nil {
		return f, false, nil, nil
	}
	if !damaged {
		file, err = os.Open(s.folder.Blob(dgst))
		switch {
		case errors.Is(err, unix.EIO): // it is fetched again
			s.Distrust(dgst)
		case err == nil || !errors.Is(err, fs.ErrNotExist):
			return nil, false, file, err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, false, nil, ErrClosed
	}
	if f := s.filling[dgst]; f != nil {
		return f, false, nil, nil
	}
	f = fill.New(s.inTraceOf(ctx), s.fillSettings, dgst, hint, fetch, s.opts.Now())
	s.filling[dgst] = f
	s.work.Go(func() { s.fill(f, dgst) })
	return f, true, nil, nil
}

// fill runs a fill from its beginning to its outcome on disk.
func (s *Store) fill(f *fill.Fill, d digest.Digest) {
	begun := time.Now()
	s.metrics.waiting.Add(1)
	err := s.fills.Acquire(f.Context(), 1)
	s.metrics.waiting.Add(-1)
	hasSlot := err == nil
	s.metrics.filling(d)
	var old *fill.Partial
	if err == nil {
		old, err = s.resume(f.Context(), d)
	}
	err = f.Run(old, err)
	s.forget(d)
	s.metrics.filled(time.Since(begun), err)
	if hasSlot {
		s.fills.Release(1)
	}
	f.End()
}

// resume waits until no other goroutine changes the files of a blob, and opens what an
// earlier process left of it. It returns nil if it left nothing, and [fill.ErrOver] if the
// blob is complete.
func (s *Store) resume(ctx context.Context, d digest.Digest) (*fill.Partial, error) {
	if err := s.awaitTurn(ctx, d); err != nil {
		return nil, err
	}
	if _, err := s.Stat(d); err == nil {
		return nil, fill.ErrOver
	}
	if s.health.Refuses() != nil {
		return nil, nil // what is on disk stays there
	}
	reserved := s.takeUp(ctx, d)
	part, err := fill.ResumePartial(s.folder, d)
	if err != nil {
		s.dropPartial(d, reserved)
		return nil, nil
	}
	s.space.Add(disk.Charge(part.Size()) - reserved) // 0, unless the scan did not see it
	return part, nil
}

// takeUp hands a partial to the fill that resumes it, and returns how many bytes are
// reserved for it. It waits for the scan.
func (s *Store) takeUp(ctx context.Context, d digest.Digest) (reserved int64) {
	select {
	case <-s.scanned:
	case <-ctx.Done():
		return 0
	}
	it, _ := s.recency.Get(d)
	if it.Partial {
		s.recency.Remove(d)
		return it.Bytes
	}
	return 0
}

func hit(file *os.File) (*Blob, error) {
	info, err := file.Stat()
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return &Blob{ReadSeekCloser: file, Size: info.Size(), State: Hit}, nil
}

// Stat returns the size of a complete blob, and fs.ErrNotExist for any other.
func (s *Store) Stat(dgst digest.Digest) (int64, error) {
	if err := CheckDigest(dgst); err != nil {
		return 0, err
	}
	s.mu.Lock()
	damaged := s.damaged[dgst]
	s.mu.Unlock()
	if damaged {
		return 0, fs.ErrNotExist
	}
	info, err := os.Stat(s.folder.Blob(dgst))
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

// setDamaged marks a blob as damaged, or clears the mark. Damaged blobs are not served.
func (s *Store) setDamaged(d digest.Digest, damaged bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if damaged {
		s.damaged[d] = true
	} else {
		delete(s.damaged, d)
	}
}
