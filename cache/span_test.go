package cache

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/larder-registry/larder/cache/fill"
	"github.com/larder-registry/larder/cache/fill/filltest"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
)

// recorded returns a tracer and the spans that it records.
func recorded() (*sdktrace.TracerProvider, *tracetest.SpanRecorder) {
	spans := tracetest.NewSpanRecorder()
	return sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans)), spans
}

// named returns the ended spans of a name.
func named(spans *tracetest.SpanRecorder, name string) (all []sdktrace.ReadOnlySpan) {
	for _, span := range spans.Ended() {
		if span.Name() == name {
			all = append(all, span)
		}
	}
	return all
}

// A fill belongs to the trace of the first request. Later requests link to it.
func TestRequestsLinkToTheFillThatServesThem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		provider, spans := recorded()
		s := openStore(t, t.TempDir(), Options{Tracer: provider})
		o, gate := filltest.New(100_000, 1), make(chan struct{})
		o.Plan = func(int, Range) filltest.Act { return filltest.Act{Wait: gate} }
		var both sync.WaitGroup
		for range 2 {
			both.Go(func() {
				ctx, span := provider.Tracer("").Start(t.Context(), "request")
				defer span.End()
				blob, err := s.Open(ctx, o.Digest, Source{Fetch: o.Fetch})
				if err != nil {
					t.Error(err)
					return
				}
				defer blob.Close()
				o.Compare(t, blob, 0, int64(len(o.Content)))
			})
		}
		synctest.Wait() // until both wait for the fill
		close(gate)
		both.Wait()
		closeStore(t, s) // this waits for all fills
		fills, requests := named(spans, "fill"), named(spans, "request")
		if len(fills) != 1 || len(requests) != 2 {
			t.Fatalf("%d fills and %d requests", len(fills), len(requests))
		}
		fill, parents := fills[0].SpanContext(), 0
		for _, request := range requests {
			if links := request.Links(); len(links) != 1 || !links[0].SpanContext.Equal(fill) {
				t.Errorf("a request has the links %v, want one to the fill", links)
			}
			if request.SpanContext().Equal(fills[0].Parent()) {
				parents++
			}
		}
		if parents != 1 {
			t.Errorf("the fill is in the trace of %d of the requests, want 1", parents)
		}
	})
}

// The context of a fill is not that of the request, but its requests are in the same trace.
func TestUpstreamRequestsAreInTheTraceOfTheFirstRequest(t *testing.T) {
	provider, spans := recorded()
	s := openStore(t, t.TempDir(), Options{Tracer: provider})
	o, img := filltest.New(1000, 1), newImage("a")
	ctx, request := provider.Tracer("").Start(t.Context(), "request")
	var manifest, blob trace.SpanContext
	if _, _, err := s.Tag(ctx, team, "v1", func(ctx context.Context, reference string, head bool) (Manifest, error) {
		manifest = trace.SpanContextFromContext(ctx)
		return img.ask(ctx, reference, head)
	}); err != nil {
		t.Fatal(err)
	}
	got, err := s.Open(ctx, o.Digest, Source{Fetch: func(ctx context.Context, r Range) (Content, error) {
		blob = trace.SpanContextFromContext(ctx)
		return o.Fetch(ctx, r)
	}})
	if err != nil {
		t.Fatal(err)
	}
	got.Close()
	closeStore(t, s)
	if !manifest.Equal(request.SpanContext()) {
		t.Errorf("a manifest was requested in the span %v, want that of the request, %v", manifest, request.SpanContext())
	}
	if fills := named(spans, "fill"); len(fills) != 1 || !blob.Equal(fills[0].SpanContext()) {
		t.Errorf("a blob was requested in the span %v, want that of the fill: %v", blob, fills)
	}
}

func TestSpanOfAFailedFillHasAnError(t *testing.T) {
	provider, spans := recorded()
	s := openStore(t, t.TempDir(), Options{Tracer: provider})
	o := filltest.New(1000, 1)
	o.Plan = func(int, Range) filltest.Act { return filltest.Act{Flip: 1} }
	if blob, err := s.Open(t.Context(), o.Digest, Source{Fetch: o.Fetch}); err == nil {
		blob.Close()
	} else if !errors.Is(err, fill.ErrMismatch) {
		t.Fatal(err)
	}
	closeStore(t, s)
	if fills := named(spans, "fill"); len(fills) != 1 || fills[0].Status().Code != codes.Error {
		t.Errorf("%v", fills)
	}
}
