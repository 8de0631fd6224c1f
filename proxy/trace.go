package proxy

import (
	"cmp"
	"net/http"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

// startSpan begins the span of a request, in the client's trace where it says one
// (W3C "Trace Context"), and returns the request with it. Without a tracer the
// span is nil, and all this costs nothing.
func (p *Proxy) startSpan(r *http.Request) (*http.Request, trace.Span) {
	if p.tracer == nil {
		return r, nil
	}
	ctx := propagation.TraceContext{}.Extract(r.Context(), propagation.HeaderCarrier(r.Header))
	ctx, span := p.tracer.Start(ctx, r.Method, p.spanOptions...)
	return r.WithContext(ctx), span
}

// endSpan says what became of a request. The URL is not told: its path is in the
// attributes, and its query is the client's own.
func endSpan(span trace.Span, r *http.Request, w *recorder, t target, aborted bool) {
	if span == nil {
		return
	}
	defer span.End()
	if !span.IsRecording() {
		return
	}
	route := cmp.Or(string(t.kind), routeOther)
	span.SetName(r.Method + " " + route)
	span.SetAttributes(
		attribute.String("http.request.method", r.Method),
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
			text = w.err.Error()
		}
		span.SetStatus(codes.Error, text)
	}
}
