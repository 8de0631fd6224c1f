package fill

import (
	"context"
	"errors"
	"fmt"
)

// Fetch waits until the blob is on disk, and returns how many bytes the sources brought in
// this fill. own says that the fill began with this call ([NewFetch]). source is that of the
// caller: the fill may use it from then on. [Unattended] marks ctx if nobody waits for the blob.
//
// A fill that no client has asked for stops when the last caller of Fetch leaves; what is on
// disk by then is resumed by the next fill.
//
// The error is ErrOver if the caller should look for the blob again.
func (f *Fill) Fetch(ctx context.Context, source Source, own bool) (brought int64, err error) {
	f.link(ctx)
	f.enterFetch(source, own, IsAttended(ctx))
	defer f.leaveFetch()
	select {
	case <-f.done:
	case <-ctx.Done():
		return 0, f.tooLate(ctx)
	}
	switch {
	case f.outcome == nil:
		f.mu.Lock()
		defer f.mu.Unlock()
		return f.arrived, nil
	case errors.Is(f.outcome, ErrOver), errors.Is(f.outcome, errUnwanted):
		return 0, ErrOver
	}
	return 0, fmt.Errorf("fetch blob %s: %w", f.digest, f.outcome)
}

// enterFetch counts a caller of Fetch and adds its source. NewFetch has counted the one that
// is the fill's own.
func (f *Fill) enterFetch(source Source, own, attended bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !own {
		f.fetchers++
	}
	if attended {
		f.attended.begin()
	}
	f.joinLocked(source)
}

func (f *Fill) leaveFetch() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fetchers--
	if f.fetchers == 0 && !f.asked {
		f.failLocked(errUnwanted)
	}
}
