package proxy

import (
	"cmp"
	"net/http"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

// traces makes a span for each request. Without a tracer it does nothing, and costs
// nothing.
type traces struct {
	tracer  trace.Tracer // nil for none
	options []trace.SpanStartOption
}

func newTraces(provider trace.TracerProvider) traces {
	if provider == nil {
		return traces{}
	}
	return traces{
		tracer:  provider.Tracer("github.com/larder-registry/larder/proxy"),
		options: []trace.SpanStartOption{trace.WithSpanKind(trace.SpanKindServer)},
	}
}

// start begins the span of a request, in the client's trace if it sends one (W3C
// "Trace Context"), and returns the request with the span in its context. Without a
// tracer the span is nil.
func (ts traces) start(r *http.Request) (*http.Request, trace.Span) {
	if ts.tracer == nil {
		return r, nil
	}
	ctx := propagation.TraceContext{}.Extract(r.Context(), propagation.HeaderCarrier(r.Header))
	ctx, span := ts.tracer.Start(ctx, cut(r.Method, maxLogged), ts.options...)
	return r.WithContext(ctx), span
}

// end ends a span, with the result of its request. The URL is left out: the attributes
// have its path, and its query may have anything.
func (ts traces) end(span trace.Span, r *http.Request, w *recorder, t target, aborted bool) {
	if span == nil {
		return
	}
	defer span.End()
	if !span.IsRecording() {
		return
	}
	route := cmp.Or(string(t.kind), routeOther)
	method := cut(r.Method, maxLogged)
	span.SetName(method + " " + route)
	span.SetAttributes(
		attribute.String("http.request.method", method),
		attribute.String("http.route", route),
		attribute.Int("http.response.status_code", w.status),
		attribute.Int64("http.response.body.size", w.bytes),
		attribute.String("larder.upstream", t.repo.Upstream),
		attribute.String("larder.repository", t.repo.Name),
		attribute.String("larder.reference", t.reference),
		attribute.String("larder.cache", w.Header().Get(xCache)),
	)
	if w.status >= http.StatusInternalServerError || aborted {
		text := http.StatusText(w.status)
		if w.err != nil {
			text = cut(w.err.Error(), maxReason)
		}
		span.SetStatus(codes.Error, text)
	}
}
