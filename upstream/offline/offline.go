// Package offline keeps requests from upstreams that the operator has declared offline:
// nothing is sent to them, no connection is made and no name looked up.
//
// A [Gate] stands before everything that one upstream is asked. Its one lock is held
// while nothing is sent and nothing else is called.
package offline

import (
	"context"
	"errors"
	"fmt"
	"sync"
)

// Error is the error of a request that was not sent, or was broken off, as its upstream
// is offline. It says nothing about what the upstream has.
type Error struct {
	Host string // of the upstream
}

func (e *Error) Error() string {
	return fmt.Sprintf("%s is offline, and this is not in the cache: import a bundle that has it, or have the upstream asked again with \"larder online %s\"",
		e.Host, e.Host)
}

// Postponed says that the request may be sent another time.
func (*Error) Postponed() bool { return true }

// Is reports whether an error is an [Error].
func Is(err error) bool {
	var e *Error
	return errors.As(err, &e)
}

// Gate lets requests through while an upstream may be asked. A nil Gate always does. It
// is safe for concurrent use.
type Gate struct {
	refusal func() error

	mu      sync.Mutex // guards what follows
	running context.Context
	end     context.CancelCauseFunc
}

// New returns a gate. refusal returns an [Error] while the upstream is offline, and nil
// otherwise. It must not block.
func New(refusal func() error) *Gate {
	g := &Gate{refusal: refusal}
	g.running, g.end = context.WithCancelCause(context.Background())
	return g
}

// Check returns an error while the upstream may not be asked.
func (g *Gate) Check() error {
	if g == nil {
		return nil
	}
	return g.refusal()
}

// Enter returns a context for a request, which ends with ctx, and with an [Error] as its
// cause when the upstream goes offline. The caller calls leave when the request is over,
// or gets an error and may not send it.
func (g *Gate) Enter(ctx context.Context) (entered context.Context, leave func(), err error) {
	if g == nil {
		return ctx, func() {}, nil
	}
	g.mu.Lock()
	running := g.running
	g.mu.Unlock()
	if err := g.refusal(); err != nil { // if it goes offline after this, running ends
		return nil, nil, err
	}
	entered, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(running, func() { cancel(context.Cause(running)) })
	return entered, func() { stop(); cancel(nil) }, nil
}

// Cut ends the requests that have entered, if the upstream is offline now. Whatever
// makes it go offline calls Cut afterwards.
func (g *Gate) Cut() {
	if err := g.Check(); err != nil {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.end(err)
		g.running, g.end = context.WithCancelCause(context.Background())
	}
}
