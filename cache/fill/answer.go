package fill

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/larder-registry/larder/cache/disk"
)

// answer is one answer of a source while its body is read. It belongs to one goroutine.
type answer struct {
	Content

	ctx    context.Context
	cancel context.CancelCauseFunc
	bound  time.Duration
	stall  *time.Timer // runs while a read waits
	turns  *turns      // of its fill, or nil
}

// ask asks a source once. The caller closes the answer. A body that brings no byte for
// stall ends with errStalled.
func ask(ctx context.Context, fetch Fetch, r Range, stall time.Duration) (*answer, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	content, err := fetch(ctx, r)
	if err != nil {
		cancel(nil)
		return nil, err
	}
	a := &answer{Content: content, ctx: ctx, cancel: cancel, bound: stall}
	a.stall = time.AfterFunc(stall, func() { cancel(errStalled) })
	a.stall.Stop()
	return a, nil
}

// Read reads from the body, and tells a stall from a break. The caller stops when it has
// all that it asked for: the end of the body is an error.
func (a *answer) Read(p []byte) (int, error) {
	if err := a.turns.await(a.ctx, a.Body); err != nil {
		return 0, err
	}
	a.stall.Reset(a.bound)
	n, err := a.Body.Read(p)
	a.stall.Stop()
	switch {
	case err == io.EOF:
		err = errTooShort
	case err != nil && errors.Is(context.Cause(a.ctx), errStalled):
		err = errStalled
	}
	return n, err
}

// skipTo reads the body up to an offset, if the source ignored the range.
func (a *answer) skipTo(off int64) error {
	if !a.Whole {
		return nil
	}
	buf := disk.Buffer()
	defer disk.FreeBuffer(buf)
	for off > 0 {
		n, err := a.Read((*buf)[:min(off, int64(len(*buf)))])
		off -= int64(n)
		if err != nil && off > 0 {
			return err
		}
	}
	return nil
}

func (a *answer) close() {
	a.stall.Stop()
	a.Body.Close()
	a.cancel(nil)
}
