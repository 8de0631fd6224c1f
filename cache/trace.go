package cache

import (
	"context"

	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
)

func tracerOf(provider trace.TracerProvider) trace.Tracer {
	if provider == nil {
		provider = noop.NewTracerProvider()
	}
	return provider.Tracer("github.com/larder-registry/larder/cache")
}

// inTraceOf returns the store's own context, for work that outlives the request of ctx and
// is part of its trace.
func (s *Store) inTraceOf(ctx context.Context) context.Context {
	span := trace.SpanContextFromContext(ctx)
	if !span.IsValid() {
		return s.ctx
	}
	return trace.ContextWithSpanContext(s.ctx, span)
}
