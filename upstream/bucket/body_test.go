package bucket

import (
	"context"
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"
)

// dripping sends n bytes after each pause.
type dripping struct {
	ctx   context.Context
	n     int
	pause time.Duration
}

func (d dripping) Read(p []byte) (int, error) {
	select {
	case <-time.After(d.pause):
		return min(d.n, len(p)), nil
	case <-d.ctx.Done():
		return 0, context.Cause(d.ctx)
	}
}

func (dripping) Close() error { return nil }

// readDripping reads a body until it ends, or for a minute, with a pause before each read. It returns what was told of it.
func readDripping(t *testing.T, n int, every, before time.Duration) (failed, err error) {
	t.Helper()
	ctx, cancel := context.WithCancelCause(t.Context())
	b := newBody(t.Context(), dripping{ctx, n, every}, cancel, silence)
	b.took, b.failed = func(int) {}, func(err error) { failed = err }
	for began := time.Now(); time.Since(began) < time.Minute; <-time.After(before) {
		if _, err = b.Read(make([]byte, 1<<20)); err != nil {
			break
		}
	}
	return failed, errors.Join(err, b.Close())
}

func TestBodyThatIsSlowOrSilentEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		if failed, err := readDripping(t, minRate/10-10, 100*time.Millisecond, 0); !errors.Is(err, errSlow) || !errors.Is(failed, errSlow) {
			t.Errorf("a slow body ends with %v, and is told of as %v", err, failed)
		}
		if failed, err := readDripping(t, 1<<20, time.Minute, 0); !errors.Is(err, errSilent) || !errors.Is(failed, errSilent) {
			t.Errorf("a silent body ends with %v, and is told of as %v", err, failed)
		}
		if failed, err := readDripping(t, minRate/10+10, 100*time.Millisecond, 0); err != nil || failed != nil {
			t.Errorf("a body that is fast enough ends with %v, and is told of as %v", err, failed)
		}
		if failed, err := readDripping(t, minRate/10+10, 100*time.Millisecond, 3*time.Second); err != nil || failed != nil {
			t.Errorf("a body that is read slowly ends with %v, and is told of as %v", err, failed)
		}
	})
}

// A reader that leaves says nothing about the bucket.
func TestReaderThatLeavesBlamesNobody(t *testing.T) {
	outer, leave := context.WithCancel(t.Context())
	ctx, cancel := context.WithCancelCause(outer)
	b := newBody(outer, dripping{ctx, 1, time.Hour}, cancel, time.Hour)
	b.took, b.failed = func(int) {}, func(err error) { t.Errorf("it is told of as %v", err) }
	leave()
	if _, err := b.Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("the body ends with %v", err)
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
}
