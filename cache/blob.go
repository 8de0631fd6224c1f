package cache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

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

// Err returns what cut the reading short, such as content that did not verify.
// The client must not take what it got for the whole.
func (b *Blob) Err() error {
	if r, ok := b.ReadSeekCloser.(*reader); ok {
		return r.Err()
	}
	return nil
}

// Open opens a blob: from disk, or by joining the fill that brings it, which
// it begins if there is none. It blocks until the size is known. The caller has
// asked [Store.Holds] whether the client may have the blob. hint is the size if
// it is known from a manifest, else 0; it only saves a request.
//
// Reads return an error where the content turns out not to match its digest,
// and never its last byte.
func (s *Store) Open(ctx context.Context, dgst digest.Digest, hint int64, fetch Fetch) (*Blob, error) {
	if err := CheckDigest(dgst); err != nil {
		return nil, fmt.Errorf("open blob %q: %w", dgst, err)
	}
	if dgst == emptySHA256 || dgst == emptySHA512 {
		return &Blob{ReadSeekCloser: held{bytes.NewReader(nil)}, State: Hit}, nil
	}
	again := false
	for {
		f, own, file, err := s.join(ctx, dgst, hint, fetch)
		if err != nil {
			return nil, fmt.Errorf("open blob %s: %w", dgst, err)
		}
		if file != nil {
			s.recency.Use(dgst, s.opts.Now())
			return hit(file)
		}
		blob, err := f.open(ctx, own)
		switch {
		case errors.Is(err, errEnded):
		case err != nil && !own && !again && ctx.Err() == nil && !errors.Is(err, errMismatch):
			again = true // it was another client's source, perhaps another registry, that failed
		default:
			return blob, err
		}
	}
}

// The blob without bytes needs neither a disk nor a source.
const (
	emptySHA256 = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	emptySHA512 = "sha512:cf83e1357eefb8bdf1542850d66d8007d620e4050b5715dc83f4a921d36ce9ce" +
		"47d0d13c5d85f2b0ff8318d2877eec2f63b931bd47417a81a538327af927da3e"
)

// join returns the file of a blob that is complete, else its fill, and whether
// that begins with this request. The fill is looked up first and leaves the map
// only when its outcome is on disk, so nothing falls between the two.
func (s *Store) join(ctx context.Context, dgst digest.Digest, hint int64, fetch Fetch) (f *fill, own bool, file *os.File, err error) {
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
	f = newFill(ctx, s, dgst, hint, fetch)
	s.filling[dgst] = f
	s.work.Go(f.run)
	return f, true, nil, nil
}

func hit(file *os.File) (*Blob, error) {
	info, err := file.Stat()
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return &Blob{ReadSeekCloser: file, Size: info.Size(), State: Hit}, nil
}

// open waits for the size and returns a reader. It returns errEnded when the
// fill had failed before this client came: the client begins another, unless
// this one was its own.
func (f *fill) open(ctx context.Context, own bool) (*Blob, error) {
	f.link(ctx)
	reads := false
	defer func() {
		if own && !reads {
			f.release()
		}
	}()
	f.mu.Lock()
	late := f.err != nil && !own
	f.mu.Unlock()
	if late {
		select {
		case <-f.done:
			return nil, errEnded
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	select {
	case <-f.ready:
	case <-ctx.Done():
		return nil, f.tooLate(ctx)
	}
	if f.acquire(own) {
		reads = true
		return &Blob{ReadSeekCloser: newReader(ctx, f), Size: f.size, State: Miss}, nil
	}
	select {
	case <-f.done:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	var ofDisk diskError
	switch {
	case f.err == nil || errors.Is(f.err, errEnded):
		return nil, errEnded // complete meanwhile: the next look finds the file
	case errors.As(f.err, &ofDisk) && f.size > 0:
		r := &reader{ctx: ctx, fill: f, pass: f.passthrough(ctx)}
		return &Blob{ReadSeekCloser: r, Size: f.size, State: Bypass}, nil
	}
	return nil, fmt.Errorf("fetch blob %s: %w", f.digest, f.err)
}

// tooLate is the error of one who waits no more for the first answer: what the
// fill waits for belongs to it.
func (f *fill) tooLate(ctx context.Context) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.trouble == nil {
		return context.Cause(ctx)
	}
	return fmt.Errorf("%w: %w", context.Cause(ctx), f.trouble)
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

// setDamaged says whether the file of a blob, which should not be there, is none
// to be served.
func (s *Store) setDamaged(d digest.Digest, damaged bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if damaged {
		s.damaged[d] = true
	} else {
		delete(s.damaged, d)
	}
}
