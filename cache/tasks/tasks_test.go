package tasks_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"go.opentelemetry.io/otel/trace"
	"go.uber.org/goleak"

	"github.com/larder-registry/larder/cache/tasks"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestCloseEndsAndAwaitsAllWork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := tasks.New()
		ended := false
		if err := g.Go(func() {
			<-g.Context().Done()
			time.Sleep(time.Second) //nolint:forbidigo // synctest's clock: no real time passes
			ended = true
		}); err != nil {
			t.Fatal(err)
		}
		if first := g.Close(); !first || !ended {
			t.Errorf("Close returned %t before the work had ended: %t", first, ended)
		}
		if first := g.Close(); first {
			t.Error("the second Close says that it is the first")
		}
		if err := g.Go(func() { t.Error("work began after Close") }); !errors.Is(err, tasks.ErrClosed) {
			t.Errorf("Go after Close: %v, want %v", err, tasks.ErrClosed)
		}
		if _, err := g.Begin(); !errors.Is(err, tasks.ErrClosed) {
			t.Errorf("Begin after Close: %v, want %v", err, tasks.ErrClosed)
		}
	})
}

func TestContextForOutlivesTheRequestInItsTrace(t *testing.T) {
	g := tasks.New()
	defer g.Close()
	span := trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1}, SpanID: trace.SpanID{2}})
	request, end := context.WithCancel(trace.ContextWithSpanContext(t.Context(), span))
	ctx := g.ContextFor(request)
	end()
	if ctx.Err() != nil {
		t.Errorf("it ended with the request: %v", ctx.Err())
	}
	if got := trace.SpanContextFromContext(ctx); got.TraceID() != span.TraceID() {
		t.Errorf("its trace is %s, want %s", got.TraceID(), span.TraceID())
	}
}

func TestWaitEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gone := errors.New("gone")
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Second, func() { cancel(gone) })
		began := time.Now()
		if err := tasks.Wait(ctx, time.Hour); !errors.Is(err, gone) || time.Since(began) != time.Second {
			t.Errorf("Wait returned %v after %v, want %v after a second", err, time.Since(began), gone)
		}
		if err := tasks.Wait(t.Context(), time.Minute); err != nil {
			t.Errorf("Wait without an end of its context: %v", err)
		}
	})
}
