// Package tasks has the goroutines of a store: they begin while it is open, and its end
// waits for all of them.
package tasks

import (
	"context"
	"errors"
	"sync"
	"time"

	"go.opentelemetry.io/otel/trace"
)

// ErrClosed is returned for work that begins after Close.
var ErrClosed = errors.New("the store is closed")

// Group is the goroutines of one store. Its methods may be called from several goroutines
// at once.
type Group struct {
	ctx    context.Context
	cancel context.CancelFunc
	work   sync.WaitGroup

	mu     sync.Mutex // guards what follows
	closed bool
}

// New returns a group that lasts until Close.
func New() *Group {
	g := &Group{}
	g.ctx, g.cancel = context.WithCancel(context.Background())
	return g
}

// Context ends when Close is called.
func (g *Group) Context() context.Context { return g.ctx }

// ContextFor is Context in the trace of a request: for work that outlives the request and
// is part of its trace.
func (g *Group) ContextFor(request context.Context) context.Context {
	span := trace.SpanContextFromContext(request)
	if !span.IsValid() {
		return g.ctx
	}
	return trace.ContextWithSpanContext(g.ctx, span)
}

// Begin notes that work begins which Close must wait for, until the caller calls end. It
// returns ErrClosed after Close.
func (g *Group) Begin() (end func(), err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return nil, ErrClosed
	}
	g.work.Add(1)
	return g.work.Done, nil
}

// Go runs f in a goroutine, unless the group is closed.
func (g *Group) Go(f func()) error {
	end, err := g.Begin()
	if err != nil {
		return err
	}
	go func() {
		defer end()
		f()
	}()
	return nil
}

// Close ends the context, waits for all goroutines, and reports whether this is the first
// call.
func (g *Group) Close() bool {
	g.mu.Lock()
	first := !g.closed
	g.closed = true
	g.mu.Unlock()
	g.cancel()
	g.work.Wait()
	return first
}

// Wait pauses for d or until the context ends.
func Wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
