package fill

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"

	"github.com/larder-registry/larder/cache/disk"
)

// Reader reads a blob while its fill runs, at its own pace. It belongs to one request,
// which ends the context given to [Fill.Open] before it closes the reader: a multi-range
// answer reads in a goroutine of its own, which Close waits for.
type Reader struct {
	ctx  context.Context // of that request
	fill *Fill           // nil if no fill brings the blob: see NewPassing
	from *origin         // the request's own source
	size int64

	mu     sync.Mutex // guards what follows; held during a read
	closed bool
	err    error // what ended the reading, other than the end of the blob
	off    int64
	start  int64 // where the client began to read
	limit  int64 // what is known to be readable from off on ends here
	// Another upstream has brought the bytes up to limit, and nothing has verified them.
	foreign bool
	wait    waiter
	pass    *passThrough // set once the fill is of no use
	holds   bool         // a right to use the partial's data file
	check   *check       // of bytes that another upstream has brought, or nil
	matched int64        // how many bytes were equal while the client read them
	trust   trust        // guarded by Fill.mu instead

	// Of SendTo, which uses them without mu too: the data file with an offset of its own,
	// and the stretch of it that is being sent.
	own   *os.File
	piece io.LimitedReader
}

// await blocks until w may have the byte at off, and returns how many bytes it may have
// from there on. After a failure it hands out what there is, then the error; after a
// mismatch nothing more.
//
// foreign says that the reader must compare them with its own source first.
func (f *Fill) await(r *Reader, w *waiter, off int64) (n int64, foreign bool, err error) {
	for {
		f.mu.Lock()
		n, foreign = f.offerLocked(r, off)
		err = f.err
		if n == 0 && err == nil {
			w.off = off
			f.waiters = append(f.waiters, w)
			f.recruitLocked()
		}
		f.mu.Unlock()
		switch {
		case errors.Is(err, ErrMismatch):
			return 0, false, err
		case n > 0:
			return n, foreign, nil
		case err != nil:
			return 0, false, err
		}
		select {
		case <-w.wake:
		case <-r.ctx.Done():
			f.leave(w)
			return 0, false, context.Cause(r.ctx)
		}
	}
}

// readableLocked is how many bytes a client may read from off on. The blob's last byte is
// kept back until the digest is verified.
func (f *Fill) readableLocked(off int64) int64 {
	n := f.segs.available(off)
	if f.state != verified && off+n == f.size && n > 0 {
		n--
	}
	return n
}

// leave takes a wait back.
func (f *Fill) leave(w *waiter) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if i := slices.Index(f.waiters, w); i >= 0 {
		f.waiters = slices.Delete(f.waiters, i, i+1)
	}
	select {
	case <-w.wake:
	default:
	}
}

// Size is the size of the blob, in bytes.
func (r *Reader) Size() int64 { return r.size }

// PassesThrough reports whether the bytes come from the source and are not kept.
func (r *Reader) PassesThrough() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.pass != nil
}

// Begin asks the source for the n bytes at off that the client reads first, if the blob is passed
// through. Its error is that of a source that does not serve them, before the client has its
// headers. Otherwise it does nothing.
func (r *Reader) Begin(off, n int64) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.pass == nil {
		return nil
	}
	if err := r.pass.begin(off, n); err != nil {
		return fmt.Errorf("fetch blob %s: %w", r.pass.digest, err)
	}
	return nil
}

// Read returns bytes as they arrive. If the disk fails it goes on from the source.
func (r *Reader) Read(p []byte) (int, error) {
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

func (r *Reader) read(p []byte) (int, error) {
	if r.pass != nil {
		return r.pass.Read(p)
	}
	if r.off >= r.size {
		return 0, io.EOF
	}
	if err := r.await(); err != nil {
		return r.leaveFill(p, err)
	}
	if r.foreign {
		return r.readChecked(p)
	}
	n, err := r.fill.part.data.ReadAt(p[:min(int64(len(p)), r.limit-r.off)], r.off)
	r.off += int64(n)
	if err != nil && n == 0 {
		return r.leaveFill(p, DiskError{err})
	}
	return n, nil
}

// await blocks until there is a byte to be read.
func (r *Reader) await() error {
	if r.off < r.limit {
		return nil
	}
	n, foreign, err := r.fill.await(r, &r.wait, r.off)
	if err == nil {
		r.foreign = foreign
		r.limit = r.off + min(n, disk.ChunkSize) // so that no more than one chunk follows a failed check
	}
	return err
}

// leaveFill continues a read from the source if err is an error of the disk, or a mismatch of
// bytes that this client did not get. It returns any other error.
func (r *Reader) leaveFill(p []byte, err error) (int, error) {
	if !isDiskError(err) && (!errors.Is(err, ErrMismatch) || !r.fill.sparedOf(r)) {
		return 0, err
	}
	if err := r.fill.awaitEnd(r.ctx, nil); err != nil {
		return 0, err
	}
	r.pass = r.fill.passThrough(r.ctx, r.fill.passSource(r.from))
	r.pass.off, r.pass.start, r.pass.until, r.pass.begun = r.off, r.start, r.wait.until, true
	return r.pass.Read(p)
}

// SendTo copies the next n bytes to dst as they arrive. It gives dst stretches of the data
// file, so that the kernel copies them to a socket by itself (sendfile(2)). If the disk
// fails it goes on from the source. It is called by the request's own goroutine.
func (r *Reader) SendTo(dst io.ReaderFrom, n int64) (sent int64, err error) {
	r.expect(n)
	for sent < n {
		stretch := r.stretch(n - sent)
		if stretch == nil {
			return r.sendRest(dst, sent, n)
		}
		want := stretch.N
		m, err := dst.ReadFrom(stretch)
		sent += m
		r.advance(m)
		switch {
		case disk.IsReadError(err), err == nil && m < want:
			return r.sendRest(dst, sent, n)
		case err != nil:
			return sent, err
		}
	}
	return sent, nil
}

// expect notes that the client wants the next n bytes.
func (r *Reader) expect(n int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.pass != nil {
		r.pass.expect(n)
		return
	}
	r.wait.until = r.off + n
}

// sendRest continues SendTo through Read, which knows what to do.
func (r *Reader) sendRest(dst io.ReaderFrom, sent, n int64) (int64, error) {
	rest := io.LimitReader(r, n-sent)
	if w, ok := dst.(io.Writer); ok { // its ReadFrom would use a new buffer of 32 KiB
		buf := disk.Buffer()
		defer disk.FreeBuffer(buf)
		m, err := io.CopyBuffer(struct{ io.Writer }{w}, rest, *buf)
		return sent + m, err
	}
	m, err := dst.ReadFrom(rest)
	return sent + m, err
}

// stretch waits for bytes and returns those, n at most, that can be read from the data file
// now. It returns nil if Read must decide.
func (r *Reader) stretch(n int64) *io.LimitedReader {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed || r.pass != nil || r.off >= r.size || r.await() != nil || r.foreign || r.reopen() != nil {
		return nil
	}
	r.piece = io.LimitedReader{R: r.own, N: min(n, r.limit-r.off)}
	return &r.piece
}

// reopen gives the reader an open file of its own, at its offset: sendfile(2) moves the
// offset of the open file, which all readers would share.
func (r *Reader) reopen() (err error) {
	if r.own == nil {
		r.own, err = os.Open(fmt.Sprintf("/proc/self/fd/%d", r.fill.part.data.Fd())) // whatever its name is by now
	}
	if err == nil {
		_, err = r.own.Seek(r.off, io.SeekStart)
	}
	return err
}

// advance notes that n bytes were sent.
func (r *Reader) advance(n int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.off += n
}

// Seek is io.Seeker.
func (r *Reader) Seek(offset int64, whence int) (int64, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.pass != nil {
		return r.pass.Seek(offset, whence)
	}
	off, err := seek(r.off, r.size, offset, whence)
	if err != nil {
		return 0, err
	}
	r.off, r.start, r.limit, r.wait.until = off, off, 0, 0
	return off, nil
}

// Close ends the reading; the fill goes on.
func (r *Reader) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil
	}
	r.closed = true
	if r.pass != nil {
		r.pass.hangUp()
	}
	if r.check != nil {
		r.check.hangUp()
	}
	if r.own != nil {
		_ = r.own.Close() // it was only read
	}
	if r.holds {
		r.fill.release()
	}
	if r.fill != nil {
		r.fill.leaveClient()
	}
	return nil
}

// Err returns what cut the reading short, or nil.
func (r *Reader) Err() error {
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
