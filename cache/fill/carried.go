package fill

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/larder-registry/larder/cache/disk"
)

// Carried is a source that costs no link: it has the bytes of one blob from a reader, once and
// from front to back.
type Carried struct {
	size int64
	in   *io.PipeReader
	out  *io.PipeWriter

	mu   sync.Mutex // guards what follows
	off  int64      // of the next byte
	busy bool       // an answer reads
}

// NewCarried returns a source of a blob of size bytes, which [Carried.Feed] gives it.
func NewCarried(size int64) *Carried {
	c := &Carried{size: size}
	c.in, c.out = io.Pipe()
	return c
}

// Source is the source for a fill.
func (c *Carried) Source() Source {
	return Source{Upstream: "an import", Size: c.size, Local: true, Fetch: c.fetch}
}

// Feed reads the blob from r and hands it to the fill. It returns when the fill has read all of
// it, or reads no more. The error is that of r, which is io.ErrUnexpectedEOF if r is too short;
// the fill ends with it, unless it has another source.
func (c *Carried) Feed(r io.Reader) error {
	in := &countingReader{in: io.LimitReader(r, c.size)}
	buf := disk.Buffer()
	defer disk.FreeBuffer(buf)
	_, err := io.CopyBuffer(c.out, in, *buf)
	switch {
	case in.err != nil:
		err = in.err
	case err != nil: // the fill reads no more
		return nil
	case in.n < c.size:
		err = io.ErrUnexpectedEOF
	}
	c.out.CloseWithError(carriedError{err})
	return err
}

// Close ends Feed. The source has no more bytes.
func (c *Carried) Close() { c.in.CloseWithError(carriedError{}) }

// countingReader keeps the error of a reader apart from that of the writer.
type countingReader struct {
	in  io.Reader
	n   int64
	err error
}

func (r *countingReader) Read(p []byte) (int, error) {
	n, err := r.in.Read(p)
	r.n += int64(n)
	if err != nil && err != io.EOF {
		r.err = err
	}
	return n, err
}

// carriedError ends the work with a Carried. What has arrived stays, see [Fetch].
type carriedError struct{ err error }

func (e carriedError) Error() string {
	if e.err == nil {
		return "the import has no more bytes"
	}
	return e.err.Error()
}

// Unwrap is for errors.Is.
func (e carriedError) Unwrap() error { return e.err }

// Postponed is for [IsPostponed].
func (carriedError) Postponed() bool { return true }

// fetch is a [Fetch]. It goes forward only.
func (c *Carried) fetch(ctx context.Context, r Range) (Content, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case r.Spare, c.busy:
		return Content{}, carriedError{errNoRanges}
	case r.Off < c.off:
		return Content{}, carriedError{fmt.Errorf("byte %d is behind those that were read, up to %d", r.Off, c.off)}
	}
	c.busy = true
	body := &carriedBody{carried: c}
	body.stop = context.AfterFunc(ctx, func() {
		if cause := context.Cause(ctx); !errors.Is(cause, errStalled) { // a slow disk is no reason
			c.in.CloseWithError(carriedError{cause})
		}
	})
	if c.off == 0 {
		return Content{Body: body, Whole: true, Size: c.size}, nil
	}
	if n, err := io.CopyN(io.Discard, c.in, r.Off-c.off); err != nil {
		c.off += n
		c.busy = false
		body.stop()
		return Content{}, err
	}
	c.off = r.Off
	return Content{Body: body, Size: c.size}, nil
}

// carriedBody is an answer.
type carriedBody struct {
	carried *Carried
	stop    func() bool
}

func (b *carriedBody) Read(p []byte) (int, error) {
	n, err := b.carried.in.Read(p)
	b.carried.mu.Lock()
	defer b.carried.mu.Unlock()
	b.carried.off += int64(n)
	return n, err
}

// Close lets another answer begin where this one ended.
func (b *carriedBody) Close() error {
	b.stop()
	b.carried.mu.Lock()
	defer b.carried.mu.Unlock()
	b.carried.busy = false
	return nil
}
