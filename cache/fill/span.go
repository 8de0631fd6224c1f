package fill

import (
	"context"
	"errors"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
)

// startSpan begins the span of a fill. It is in the trace of the request that began the
// fill, so that a cold pull is one trace, and lasts as long as the fill. Every request that
// is served from the fill links to it.
func (f *Fill) startSpan(ctx context.Context) {
	ctx, f.span = f.set.Tracer.Start(ctx, "fill", trace.WithAttributes(attribute.String("larder.digest", f.digest.String())))
	f.ctx, f.cancel = context.WithCancelCause(ctx)
}

func (f *Fill) endSpan(err error) {
	f.span.SetAttributes(attribute.Int64("larder.size", f.size))
	if err != nil && !errors.Is(err, ErrOver) {
		f.span.SetAttributes(attribute.String("larder.result", ResultOf(err)))
		f.span.SetStatus(codes.Error, err.Error())
	}
	f.span.End()
}

// link makes the span of a request point at the fill that serves it.
func (f *Fill) link(ctx context.Context) {
	trace.SpanFromContext(ctx).AddLink(trace.Link{SpanContext: f.span.SpanContext()})
}
