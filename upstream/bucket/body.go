package bucket

import (
	"context"
	"errors"
	"io"
	"time"
)

const (
	// silence is how long a body may bring no byte: less than the two seconds after which a fill asks again.
	silence = 1500 * time.Millisecond
	// minRate is how many bytes a second a body must bring, over rateWindow of time that its reads took: as much as
	// another node must.
	minRate    = 64 << 10
	rateWindow = 4 * time.Second
)

var errSlow = errors.New("it sends too slowly")

// body is that of an object. It ends when the bucket is silent, or sends too slowly, and says so to failed, as it does
// when the bucket breaks off. It belongs to one goroutine.
type body struct {
	io.ReadCloser
	outer  context.Context // of the reader
	cancel context.CancelCauseFunc
	quiet  *time.Timer // runs while a read waits
	bound  time.Duration
	took   func(n int)
	failed func(error)

	waited time.Duration // the window: in its reads
	n      int64         // bytes in it
}

func newBody(outer context.Context, inner io.ReadCloser, cancel context.CancelCauseFunc, bound time.Duration) *body {
	b := &body{ReadCloser: inner, outer: outer, cancel: cancel, bound: bound}
	b.quiet = time.AfterFunc(bound, func() { cancel(errSilent) })
	b.quiet.Stop()
	return b
}

// Read is for io.Reader.
func (b *body) Read(p []byte) (int, error) {
	began := time.Now()
	b.quiet.Reset(b.bound)
	n, err := b.ReadCloser.Read(p)
	inTime := b.quiet.Stop()
	b.waited += time.Since(began)
	b.n += int64(n)
	b.took(n)
	if err == nil && b.waited >= rateWindow {
		if float64(b.n) < minRate*b.waited.Seconds() {
			err = errSlow
		}
		b.waited, b.n = 0, 0
	}
	if err != nil && !errors.Is(err, io.EOF) && b.outer.Err() == nil {
		if !inTime {
			err = errSilent
		}
		b.failed(err)
	}
	return n, err
}

// Close is for io.Closer.
func (b *body) Close() error {
	b.quiet.Stop()
	err := b.ReadCloser.Close()
	b.cancel(nil)
	return err
}
