package fill

import (
	"context"
	"errors"
	"io/fs"
	"time"

	"github.com/cenkalti/backoff/v5"
)

// Retry bounds how a broken connection and a slow source are replaced.
type Retry struct {
	// First and Later are how many connections in a row may bring nothing before the
	// fill gives up: First while clients still wait for their headers and could go
	// elsewhere; Later afterwards, when giving up would break bodies in their middle. 0
	// means 3 and 8.
	First, Later int
	// Pause is the mean wait before the second try; it doubles up to MaxPause. 0 means
	// 100 ms and 5 s: three tries fit in half a second, eight in 20 s.
	Pause, MaxPause time.Duration
	// FirstStall is how long the first connection of a part may bring no byte: one that
	// a firewall has forgotten, or that ended in one of a storage's slow servers, is
	// replaced before a client notices. After each stall the next connection has twice as
	// long, up to Stall, so that a slow upstream is not asked over and over. 0 means 2 s
	// and 15 s.
	FirstStall, Stall time.Duration
	// Patience is how long a source may be below the floor while clients wait and another
	// source could be asked; and how long a client waits for bytes of another upstream to be
	// verified before it asks its own. 0 means 2 s: SOCI waits 3 s for an answer.
	Patience time.Duration
	// Idle is how long a fill that no client waits for may bring next to nothing. 0 means
	// 30 s: two stalls.
	Idle time.Duration
}

const (
	// floor is the least that a source must bring in a second while clients wait, in bytes,
	// or another source takes over: a tenth of a link of 5 Mbit/s.
	floor = 64 << 10
	// idleFloor is the least that a fill must bring in a second while no client waits, in
	// bytes: 64 fills that share a link of 1 Mbit/s bring twice as much.
	idleFloor = 1 << 10
)

// isTooSlow reports whether n bytes in Patience are below the floor.
func (r Retry) isTooSlow(n int64) bool { return float64(n) < floor*r.Patience.Seconds() }

// isIdle reports whether n bytes in Patience are next to nothing.
func (r Retry) isIdle(n int64) bool { return float64(n) < idleFloor*r.Patience.Seconds() }

func (r Retry) withDefaults() Retry {
	setDefault(&r.First, 3)
	setDefault(&r.Later, 8)
	setDefault(&r.Pause, 100*time.Millisecond)
	setDefault(&r.MaxPause, 5*time.Second)
	setDefault(&r.FirstStall, 2*time.Second)
	setDefault(&r.Stall, 15*time.Second)
	setDefault(&r.Patience, 2*time.Second)
	setDefault(&r.Idle, 30*time.Second)
	return r
}

// finalError marks an error after which another connection would not help.
type finalError struct{ error }

func (e finalError) Unwrap() error { return e.error }

// tries counts the connections in a row that brought nothing. It belongs to one goroutine.
type tries struct {
	retry   Retry
	spare   bool // others do the work if this connection gives up
	patient bool // clients have their headers: Later counts, not First

	n      int
	stall  time.Duration // of the next connection; 0 means retry.FirstStall
	pauses *backoff.ExponentialBackOff
}

// progress notes that bytes arrived.
func (t *tries) progress() { t.n, t.patient = 0, true }

// patience returns how long the next connection may bring no byte.
func (t *tries) patience() time.Duration {
	setDefault(&t.stall, t.retry.FirstStall)
	return min(t.stall, t.retry.Stall)
}

// again decides whether another connection is tried after err. It returns how long to wait
// before that, or the error that ends the work.
func (t *tries) again(ctx context.Context, err error) (time.Duration, error) {
	var final finalError
	if errors.Is(err, errStalled) {
		t.stall = 2 * t.patience()
	}
	switch {
	case ctx.Err() != nil:
		return 0, context.Cause(ctx)
	case errors.As(err, &final):
		return 0, final.error
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, fs.ErrPermission), isDiskError(err), IsPostponed(err):
		return 0, err
	}
	t.n++
	most := t.retry.First
	switch {
	case t.spare:
		most = 2
	case t.patient:
		most = t.retry.Later
	}
	if t.n >= most {
		return 0, err
	}
	pause := t.pause(err)
	if pause > 2*t.retry.MaxPause {
		return 0, err
	}
	return pause, nil
}

// pause grows with each try that brought nothing, and is at least what the source asked
// for.
func (t *tries) pause(err error) time.Duration {
	if t.pauses == nil {
		t.pauses = &backoff.ExponentialBackOff{
			InitialInterval:     t.retry.Pause,
			RandomizationFactor: backoff.DefaultRandomizationFactor,
			Multiplier:          2,
			MaxInterval:         t.retry.MaxPause,
		}
	}
	if t.n == 1 {
		t.pauses.Reset()
	}
	pause := t.pauses.NextBackOff()
	var asked interface{ RetryAfter() time.Duration }
	if errors.As(err, &asked) {
		pause = max(pause, asked.RetryAfter())
	}
	return pause
}

func setDefault[T comparable](v *T, def T) {
	var zero T
	if *v == zero {
		*v = def
	}
}
