package fill

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"
)

// origin is a [Source] of one fill, with what the fill has learned about it.
type origin struct {
	Source

	// Of its connections; it ends with errReplaced when another source takes over. Both are
	// nil until the source is active.
	ctx    context.Context
	cancel context.CancelCauseFunc

	// Fill.mu guards what follows.
	size      int64 // what a manifest of its clients, or itself, tells; or 0
	standing  standing
	err       error // why it was replaced
	entitled  bool  // its clients may have what other realms have brought
	confirmed bool  // it is, since it has sent the same bytes
}

// standing is what a fill knows about one of its sources.
type standing uint8

const (
	untried standing = iota
	active           // connections ask it, and no other source
	slow             // it was below the floor while another source could be asked
	broken           // its connections broke too often in a row
	refused          // it says that it does not have the blob, or that the client may not have it
	lying            // it contradicted its manifest, or the size that clients were told
)

// isHealthy reports whether nothing speaks against the source.
func (o *origin) isHealthy() bool { return o.standing == untried || o.standing == active }

// standingAfter is what an error that ended the work with a source says about it.
func standingAfter(err error) standing {
	switch {
	case contradicts(err):
		return lying
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, fs.ErrPermission):
		return refused
	}
	return broken
}

// joinLocked adds a client's source, unless the fill has it already.
func (f *Fill) joinLocked(s Source) *origin {
	for _, o := range f.sources {
		if o.Upstream == s.Upstream && o.Repository == s.Repository {
			o.size = cmp.Or(o.size, s.Size)
			return o
		}
	}
	o := &origin{Source: s, size: s.Size}
	f.sources = append(f.sources, o)
	return o
}

// useLocked makes a source the one that connections ask.
func (f *Fill) useLocked(o *origin) {
	o.standing = active
	o.ctx, o.cancel = context.WithCancelCause(f.ctx)
	f.source = o
	f.paceLocked()
}

// sizeOf returns the size that a source's manifests tell, in bytes, or 0.
func (f *Fill) sizeOf(o *origin) int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return o.size
}

// expectedSize returns the size that a source has to tell, in bytes, or 0.
func (f *Fill) expectedSize(o *origin) int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return cmp.Or(f.size, o.size)
}

// nextLocked returns the source to try if the active one is of no use: one that was not tried
// before, else one that was merely slow, else nil.
func (f *Fill) nextLocked() *origin {
	for _, wanted := range []standing{untried, slow} {
		for _, o := range f.sources {
			if o.standing == wanted && o != f.source {
				return o
			}
		}
	}
	return nil
}

// replaceLocked has another source take over from o, which is active. It returns false if
// there is no other.
func (f *Fill) replaceLocked(o *origin, becomes standing, cause error) bool {
	next := f.nextLocked()
	if next == nil {
		return false
	}
	o.standing, o.err = becomes, cause
	o.cancel(errReplaced)
	f.trouble = cause
	f.useLocked(next)
	return true
}

// handOver reports whether a connection that asked o goes on with another source: one has
// taken over already, or takes over now because err ended the work with o.
func (f *Fill) handOver(o *origin, spare bool, err error) bool {
	if isDiskError(err) || f.ctx.Err() != nil {
		return false
	}
	f.mu.Lock()
	replaced := f.source != o
	takesOver := !replaced && err != nil && (!spare || contradicts(err)) && f.replaceLocked(o, standingAfter(err), err)
	f.mu.Unlock()
	if takesOver {
		f.noteReplaced(o, err)
	}
	return replaced || takesOver
}

// noteReplaced tells the log and the trace that another source took over.
func (f *Fill) noteReplaced(o *origin, cause error) {
	f.log.Warn("another source takes over a fill", "from", o.Upstream+"/"+o.Repository, "error", cause)
	f.span.AddEvent("source replaced", trace.WithAttributes(attribute.String("error", cause.Error())))
}

// paceLocked begins a new look at the fill's pace. It has no effect before the fill has
// started.
func (f *Fill) paceLocked() {
	f.judged = f.arrived
	if f.pace != nil {
		f.pace.Reset(f.set.Retry.Patience)
	}
}

// judgePace runs every Retry.Patience while the fill runs. If clients wait and the active
// source is below the floor, one that was not tried takes over. If no client waits, the fill
// is given up when it has been below the floor for long. A fill whose bodies had to wait for
// their turns is not judged.
func (f *Fill) judgePace() {
	rationed := f.turns.waited()
	f.mu.Lock()
	o, cause := f.source, error(nil)
	switch {
	case f.state == verified || f.state == failed:
		f.mu.Unlock()
		return
	case f.clients > 0 && !rationed && f.set.Retry.isTooSlow(f.arrived-f.judged):
		if next := f.nextLocked(); next != nil && next.standing == untried {
			cause = errTooSlow
			f.replaceLocked(o, slow, cause)
		}
	}
	switch {
	case f.clients > 0 || rationed || !f.set.Retry.isIdle(f.arrived-f.judged):
		f.idleSince = time.Time{}
	case f.idleSince.IsZero():
		f.idleSince = time.Now()
	case time.Since(f.idleSince) >= f.set.Retry.Idle:
		f.failLocked(errIdle)
	}
	f.paceLocked()
	f.mu.Unlock()
	if cause != nil {
		f.noteReplaced(o, cause)
	}
}

// proven returns the sources that are known to have the blob, whose digest is verified: they
// have brought as much of it as [Confirm] may ask for, or sent the same bytes as others.
func (f *Fill) proven() []Source {
	f.mu.Lock()
	defer f.mu.Unlock()
	var proven []Source
	for _, o := range f.sources {
		if o.confirmed || f.segs.broughtBy(&o.Source) >= min(proofSpan, f.size) {
			proven = append(proven, o.Source)
		}
	}
	return proven
}
