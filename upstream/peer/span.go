package peer

import (
	"context"
	"net/http"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

// Answers of a node, in spans.
const (
	answerHas     = "has"       // it has all of what it sends
	answerGetting = "getting"   // it sends it while it gets it
	answerPassed  = "passed on" // it names another node
	answerNone    = "none"      // it is of no use
)

// startSpan begins the span of a question to one node. It is below that of the fill, or of the request, that asks, and
// lasts until the answer's body is closed.
func (p *Peers) startSpan(ctx context.Context, node string, q question) (context.Context, trace.Span) {
	ctx, span := p.tracer.Start(ctx, q.method+" peer", trace.WithSpanKind(trace.SpanKindClient))
	if span.IsRecording() {
		span.SetAttributes(
			attribute.String("http.request.method", q.method),
			attribute.String("url.path", q.path),
			attribute.String("server.address", node),
			attribute.String("larder.peer.zone", p.zoneOf(node)))
	}
	return ctx, span
}

// zoneOf returns the zone of the node at an address, and "" if it is not known.
func (p *Peers) zoneOf(node string) string {
	for _, n := range p.cluster.All() {
		if n.Content.String() == node {
			return n.Zone
		}
	}
	return ""
}

// injectTrace tells a node the trace of a question (W3C "Trace Context"), so that its spans are part of it.
func injectTrace(ctx context.Context, header http.Header) {
	propagation.TraceContext{}.Inject(ctx, propagation.HeaderCarrier(header))
	header.Del("Tracestate") // of the client's vendor
}

// answeredSpan notes a node's answer, and ends the span if there is nothing to read.
func answeredSpan(span trace.Span, a answer, to string, err error) {
	said := answerGetting
	switch {
	case err != nil:
		said = answerNone
		span.SetStatus(codes.Error, err.Error())
	case to != "":
		said = answerPassed
		span.SetAttributes(attribute.String("larder.peer.to", to))
	case a.whole():
		said = answerHas
	}
	span.SetAttributes(attribute.String("larder.peer.answer", said))
	if err != nil || to != "" {
		span.End()
	}
}

// endSpan ends the span of an answer that was read.
func endSpan(span trace.Span, bytes int64) {
	span.SetAttributes(attribute.Int64("http.response.body.size", bytes))
	span.End()
}
