package blobs // white-box: a client joins fills that the test runs step by step

import (
	"context"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/larder-registry/larder/cache/fill"
	"github.com/larder-registry/larder/cache/fill/filltest"
)

// noticed is a context that sends whenever its end is waited for.
type noticed struct {
	context.Context
	waits chan struct{}
}

func (n noticed) Done() <-chan struct{} {
	select {
	case n.waits <- struct{}{}:
	default:
	}
	return n.Context.Done()
}

// A client that finds a fill which is about to end looks again. That does not use up its one
// try after another client's source has failed.
func TestOpenTriesItsOwnSourceAfterOneFillEndedAndAnotherFailed(t *testing.T) {
	s := openStore(t)
	origin := filltest.New(1000, 1)
	d, broken := origin.Digest, errors.New("the source of another client failed")
	other := func() *queued {
		return &queued{
			Fill:   fill.New(t.Context(), &s.Fill, d, fill.Source{}, time.Now()),
			ticket: newSlots(1).enqueue(""),
		}
	}
	ended, failing := other(), other()
	_ = ended.Run(nil, broken) // it has failed, and is in the table until it ends
	s.locks.fills[d] = ended

	ctx := noticed{t.Context(), make(chan struct{}, 1)}
	opened := make(chan error, 1)
	go func() {
		blob, err := s.Open(ctx, d, fill.Source{Fetch: origin.Fetch})
		if err == nil {
			_, err = io.Copy(io.Discard, blob)
			err = errors.Join(err, blob.Close())
		}
		opened <- err
	}()
	wait := func() {
		t.Helper()
		select {
		case <-ctx.waits:
		case <-time.After(10 * time.Second):
			t.Fatal("the client waits for no fill")
		}
	}
	replace := func(f *queued) {
		s.locks.mu.Lock()
		defer s.locks.mu.Unlock()
		if s.locks.fills[d] = f; f == nil {
			delete(s.locks.fills, d)
		}
	}
	wait()
	replace(failing)
	ended.End()
	wait()
	_ = failing.Run(nil, broken)
	replace(nil)
	failing.End()
	if err := <-opened; err != nil {
		t.Errorf("open: %v", err)
	}
}
