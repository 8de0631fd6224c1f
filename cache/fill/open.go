package fill

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"
)

// Open waits until the size is known, and returns a reader. own says that the fill began
// with this request. source is that of the request: the fill may use it from then on. The
// error is ErrOver if the fill ended, whatever its outcome, before this client could join
// it.
//
// A client gets no unverified bytes of another upstream than its own, as long as its own
// source is healthy: Open waits for a while whether the fill ends, and afterwards the reader
// compares such bytes with its own source.
func (f *Fill) Open(ctx context.Context, source Source, own bool) (*Reader, error) {
	f.link(ctx)
	from := f.enter(source, source.isKnown(), own)
	r, err := f.open(ctx, from, own)
	if own && (err != nil || !r.holds) {
		f.release() // the right that New gave to this request
	}
	if err != nil {
		f.leaveClient()
	}
	return r, err
}

// enter counts a client and adds its source. New has counted the client that is the fill's own.
func (f *Fill) enter(source Source, entitled, own bool) *origin {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked = true
	f.attended.begin()
	if !own {
		f.clients++
	}
	o := f.joinLocked(source)
	o.entitled = o.entitled || entitled
	return o
}

func (f *Fill) leaveClient() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.clients--
}

func (f *Fill) open(ctx context.Context, from *origin, own bool) (*Reader, error) {
	if !own && f.hasFailed() {
		return nil, f.awaitEnd(ctx, ErrOver)
	}
	select {
	case <-f.ready:
	case <-ctx.Done():
		return nil, f.tooLate(ctx)
	}
	if isRefused, err := f.refusal(from); isRefused {
		return nil, fmt.Errorf("fetch blob %s: %w", f.digest, err)
	}
	if size, differs := f.otherSize(from); differs {
		return f.openPast(ctx, from, size)
	}
	if err := f.awaitVerified(ctx, from); err != nil {
		return nil, err
	}
	if f.acquire(own) {
		r := &Reader{ctx: ctx, fill: f, from: from, size: f.size, holds: true, wait: waiter{wake: make(chan struct{}, 1)}}
		same, err := r.prove()
		if same {
			return r, nil
		}
		return f.openUnproven(r, own, err)
	}
	if err := f.awaitEnd(ctx, nil); err != nil {
		return nil, err
	}
	switch {
	case f.err == nil || errors.Is(f.err, ErrOver):
		return nil, ErrOver // the blob is complete
	case isDiskError(f.err) && f.size > 0 && f.needsProof(from):
		return f.openPast(ctx, from, cmp.Or(from.size, f.size))
	case isDiskError(f.err) && f.size > 0:
		return &Reader{ctx: ctx, fill: f, from: from, size: f.size, pass: f.passThrough(ctx, f.passSource(from))}, nil
	case from.isHealthy() && f.source != from:
		return nil, ErrOver // the failure is another source's
	}
	return nil, fmt.Errorf("fetch blob %s: %w", f.digest, f.err)
}

// refusal returns why a client's own source refused the blob to it. Another source may have
// the blob, for its own clients.
func (f *Fill) refusal(from *origin) (isRefused bool, why error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return from.standing == refused, from.err
}

// otherSize returns the size that the manifest of a client tells, if the fill has another.
func (f *Fill) otherSize(from *origin) (int64, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return from.size, from.size > 0 && f.size > 0 && from.size != f.size && from.isHealthy() && from != f.source
}

// openUnproven ends a reader that may not have what others have brought: its own source has
// failed with err, or sends something else.
func (f *Fill) openUnproven(r *Reader, own bool, err error) (*Reader, error) {
	if r.check != nil {
		r.check.hangUp()
	}
	if !own {
		f.release() // Open does so for the fill's own client
	}
	switch {
	case err == nil || isDiskError(err):
		return f.openPast(r.ctx, r.from, cmp.Or(r.from.size, f.size))
	case f.hasFailed():
		if err := f.awaitEnd(r.ctx, nil); err != nil {
			return nil, err
		}
		if r.from.isHealthy() && f.source != r.from {
			return nil, ErrOver // the failure is another source's
		}
	}
	return nil, fmt.Errorf("fetch blob %s: %w", f.digest, err)
}

// openPast opens a blob at the client's own source: its manifest contradicts the source that
// the fill uses, and only the digest will tell which of them is right.
func (f *Fill) openPast(ctx context.Context, from *origin, size int64) (*Reader, error) {
	pass := f.passAll(ctx, from.Source, size)
	if err := pass.begin(0, size); err != nil {
		pass.hangUp()
		return nil, fmt.Errorf("fetch blob %s: %w", f.digest, err)
	}
	return &Reader{ctx: ctx, fill: f, from: from, size: size, pass: pass}, nil
}

// awaitVerified waits for Retry.Patience at most whether a fill that has bytes of another
// upstream ends. It returns ErrOver if it does.
func (f *Fill) awaitVerified(ctx context.Context, from *origin) error {
	f.mu.Lock()
	waits := from.isHealthy() && f.state == filling && (f.source.Upstream != from.Upstream || f.segs.hasForeign(from.Upstream))
	f.mu.Unlock()
	if !waits {
		return nil
	}
	patience := time.NewTimer(f.set.Retry.Patience)
	defer patience.Stop()
	select {
	case <-f.done:
		return ErrOver
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-patience.C:
		return nil
	}
}

// acquire gives a reader the right to use the data file; the request for which the fill
// began has it already. It returns false if the fill has no partial, or has failed.
func (f *Fill) acquire(own bool) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.state == failed || f.part == nil || f.users == 0 {
		return false
	}
	if !own {
		f.users++
	}
	return true
}

func (f *Fill) hasFailed() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.state == failed
}

// awaitEnd waits until the fill has ended, and returns then.
func (f *Fill) awaitEnd(ctx context.Context, then error) error {
	select {
	case <-f.done:
		return then
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// tooLate is the error for a client whose wait for the first answer ended. It names what
// the fill waits for.
func (f *Fill) tooLate(ctx context.Context) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.trouble == nil {
		return context.Cause(ctx)
	}
	return fmt.Errorf("%w: %w", context.Cause(ctx), f.trouble)
}
