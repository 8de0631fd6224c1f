package cache

import (
	"context"
	"errors"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
)

func tracerOf(provider trace.TracerProvider) trace.Tracer {
	if provider == nil {
		provider = noop.NewTracerProvider()
	}
	return provider.Tracer("github.com/larder-registry/larder/cache")
}

// inTraceOf returns the store's own context, for work that outlives the request
// of ctx and yet is part of its trace.
func (s *Store) inTraceOf(ctx context.Context) context.Context {
	span := trace.SpanContextFromContext(ctx)
	if !span.IsValid() {
		return s.ctx
	}
	return trace.ContextWithSpanContext(s.ctx, span)
}

// startSpan begins the span of a fill. It is in the trace of the request that
// began the fill, so that a cold pull is one trace, and lasts for as long as the
// fill does. Every request that is served from it links to it.
func (f *fill) startSpan(ctx context.Context) {
	ctx, f.span = f.store.tracer.Start(f.store.inTraceOf(ctx), "fill",
		trace.WithAttributes(attribute.String("larder.digest", f.digest.String())))
	f.ctx, f.cancel = context.WithCancelCause(ctx)
}

// endSpan is for run, at the very end.
func (f *fill) endSpan(err error) {
	f.span.SetAttributes(attribute.Int64("larder.size", f.size))
	if err != nil && !errors.Is(err, errEnded) {
		f.span.SetAttributes(attribute.String("larder.result", result(err)))
		f.span.SetStatus(codes.Error, err.Error())
	}
	f.span.End()
}

// link has the span of a request point at the fill that serves it.
func (f *fill) link(ctx context.Context) {
	trace.SpanFromContext(ctx).AddLink(trace.Link{SpanContext: f.span.SpanContext()})
}
