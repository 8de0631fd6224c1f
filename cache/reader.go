package cache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// reader tails a fill at its own pace. It belongs to one request, which cancels
// ctx before it closes the reader: a multi-range answer reads in a goroutine of
// its own, that Close waits for.
type reader struct {
	ctx  context.Context // of that request
	fill *fill

	mu     sync.Mutex // guards what follows; held during a read
	closed bool
	err    error // what ended the reading, other than the end of the blob
	off    int64
	limit  int64 // what is known to be readable from off on ends here
	wait   waiter
	pass   *passthrough // set once the disk is of no use
	holds  bool         // a right to use the fill's file

	// Of SendTo, which uses them without mu too: the fill's file with an offset of
	// its own, and what of it is being sent.
	own   *os.File
	piece io.LimitedReader
}

// newReader returns a reader for a client that has acquired the fill.
func newReader(ctx context.Context, f *fill) *reader {
	return &reader{ctx: ctx, fill: f, holds: true, wait: waiter{wake: make(chan struct{}, 1)}}
}

// Read returns bytes as they arrive. Where the disk fails it goes on from the
// upstream.
func (r *reader) Read(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return 0, os.ErrClosed
	}
	n, err := r.read(p)
	if err != nil && err != io.EOF {
		r.err = err
	}
	return n, err
}

func (r *reader) read(p []byte) (int, error) {
	if r.pass != nil {
		return r.pass.Read(p)
	}
	if r.off >= r.fill.size {
		return 0, io.EOF
	}
	if err := r.await(); err != nil {
		return r.around(p, err)
	}
	n, err := r.fill.part.data.ReadAt(p[:min(int64(len(p)), r.limit-r.off)], r.off)
	r.off += int64(n)
	if err != nil && n == 0 {
		return r.around(p, diskError{err})
	}
	return n, nil
}

// await blocks until there is a byte to be read.
func (r *reader) await() error {
	if r.off < r.limit {
		return nil
	}
	n, err := r.fill.await(r.ctx, &r.wait, r.off)
	if err == nil {
		r.limit = r.off + min(n, chunkSize) // not more, lest bad content goes on after it was found out
	}
	return err
}

// SendTo copies the next n bytes to dst as they arrive. It hands it stretches of
// the file, so that the kernel copies them to a socket by itself (sendfile(2)), and
// where the disk fails it goes on from the upstream. It is called by the request's
// own goroutine.
func (r *reader) SendTo(dst io.ReaderFrom, n int64) (sent int64, err error) {
	for sent < n {
		stretch := r.stretch(n - sent)
		if stretch == nil {
			return r.sendRest(dst, sent, n)
		}
		want := stretch.N
		m, err := dst.ReadFrom(stretch)
		sent += m
		r.passed(m)
		switch {
		case errors.Is(err, unix.EIO), errors.Is(err, unix.ESTALE), err == nil && m < want:
			return r.sendRest(dst, sent, n) // no socket has such an error: the file has
		case err != nil:
			return sent, err
		}
	}
	return sent, nil
}

// sendRest goes on where SendTo has got to by way of Read, which knows what to do.
func (r *reader) sendRest(dst io.ReaderFrom, sent, n int64) (int64, error) {
	m, err := dst.ReadFrom(io.LimitReader(r, n-sent))
	return sent + m, err
}

// stretch waits for bytes and returns those, n at most, that can be read from the
// file now. It returns nil where Read is to have the word.
func (r *reader) stretch(n int64) *io.LimitedReader {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed || r.pass != nil || r.off >= r.fill.size || r.await() != nil || r.reopen() != nil {
		return nil
	}
	r.piece = io.LimitedReader{R: r.own, N: min(n, r.limit-r.off)}
	return &r.piece
}

// reopen gives the reader a file of its own at its offset: sendfile(2) goes by the
// offset of the file, which all who share it move.
func (r *reader) reopen() (err error) {
	if r.own == nil {
		r.own, err = os.Open(fmt.Sprintf("/proc/self/fd/%d", r.fill.part.data.Fd())) // whatever it is called by now
	}
	if err == nil {
		_, err = r.own.Seek(r.off, io.SeekStart)
	}
	return err
}

// passed notes that n bytes were sent.
func (r *reader) passed(n int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.off += n
}

// around leaves a disk that failed behind.
func (r *reader) around(p []byte, err error) (int, error) {
	var ofDisk diskError
	if !errors.As(err, &ofDisk) {
		return 0, err
	}
	select {
	case <-r.fill.done:
	case <-r.ctx.Done():
		return 0, context.Cause(r.ctx)
	}
	r.pass = r.fill.passthrough(r.ctx)
	if _, err := r.pass.Seek(r.off, io.SeekStart); err != nil {
		return 0, err
	}
	return r.pass.Read(p)
}

// Seek is io.Seeker.
func (r *reader) Seek(offset int64, whence int) (int64, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.pass != nil {
		return r.pass.Seek(offset, whence)
	}
	off, err := seek(r.off, r.fill.size, offset, whence)
	if err != nil {
		return 0, err
	}
	r.off, r.limit = off, 0
	return off, nil
}

// Close ends the reading; the fill goes on.
func (r *reader) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil
	}
	r.closed = true
	if r.pass != nil {
		r.pass.hangUp()
	}
	if r.holds {
		r.fill.release()
	}
	if r.own != nil {
		_ = r.own.Close() // nothing was written by it
	}
	return nil
}

// Err returns what cut the reading short, or nil.
func (r *reader) Err() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.err
}

// seek computes a new offset as [io.Seeker] defines it.
func seek(at, size, offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += at
	case io.SeekEnd:
		offset += size
	}
	if offset < 0 {
		return 0, errors.New("seek before the beginning of a blob")
	}
	return offset, nil
}
