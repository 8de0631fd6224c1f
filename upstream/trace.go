package upstream

import (
	"context"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
)

func tracerOf(provider trace.TracerProvider) trace.Tracer {
	if provider == nil {
		provider = noop.NewTracerProvider()
	}
	return provider.Tracer("github.com/larder-registry/larder/upstream")
}

// call is a request on its way, of which the span lasts until the answer's body
// is closed. Nil does nothing.
type call struct {
	*caller
	target string
	span   trace.Span
	begun  time.Time
}

// begin is called just before a request is sent. It tells the registry itself,
// and nobody else, which trace the request is of (W3C "Trace Context"). The
// span has neither header nor query, which may be credentials, and the path of
// what the registry itself is asked for only.
func (c *caller) begin(req *http.Request, target string) (*http.Request, *call) {
	if c == nil {
		return req, nil
	}
	ctx, span := c.tracer.Start(req.Context(), req.Method+" "+target, trace.WithSpanKind(trace.SpanKindClient))
	if span.IsRecording() {
		span.SetAttributes(
			attribute.String("larder.upstream", c.upstream.Value.AsString()),
			attribute.String("http.request.method", req.Method),
			attribute.String("server.address", req.URL.Host))
		if target == toRegistry {
			span.SetAttributes(attribute.String("url.path", req.URL.Path))
		}
	}
	if target == toRegistry && span.SpanContext().IsValid() {
		propagation.TraceContext{}.Inject(ctx, propagation.HeaderCarrier(req.Header))
		req.Header.Del("Tracestate") // what others said of the trace is not the registry's business
	}
	return req.WithContext(ctx), &call{c, target, span, time.Now()}
}

// end takes the answer, or why there is none.
func (c *call) end(resp *http.Response, err error) {
	switch {
	case c == nil:
	case err != nil:
		c.answered(c.target, 0, time.Since(c.begun), err)
		c.span.SetStatus(codes.Error, err.Error())
		c.span.End()
	default:
		c.answered(c.target, resp.StatusCode, time.Since(c.begun), nil)
		c.span.SetAttributes(attribute.Int("http.response.status_code", resp.StatusCode))
		if resp.StatusCode >= http.StatusInternalServerError || resp.StatusCode == http.StatusTooManyRequests {
			c.span.SetStatus(codes.Error, http.StatusText(resp.StatusCode))
		}
		resp.Body = &countedBody{ReadCloser: resp.Body, call: c}
	}
}

// countedBody is an answer's body. As with every body of net/http, a Close may
// come from another goroutine, to end a Read that waits.
type countedBody struct {
	io.ReadCloser
	call *call
	n    atomic.Int64
	over sync.Once
}

func (b *countedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.n.Add(int64(n))
	return n, err
}

func (b *countedBody) Close() error {
	err := b.ReadCloser.Close()
	b.over.Do(func() {
		n := b.n.Load()
		b.call.received(b.call.target, n)
		b.call.span.SetAttributes(attribute.Int64("http.response.body.size", n))
		b.call.span.End()
	})
	return err
}

// api counts and traces a call of an AWS API, whose requests the SDK sends. The
// caller calls end when it is over.
func (c *caller) api(ctx context.Context, operation string) (_ context.Context, end func(error)) {
	if c == nil {
		return ctx, func(error) {}
	}
	begun := time.Now()
	ctx, span := c.tracer.Start(ctx, operation, trace.WithSpanKind(trace.SpanKindClient), trace.WithAttributes(attribute.String("larder.upstream", c.upstream.Value.AsString())))
	return ctx, func(err error) {
		if apiThrottled(err) {
			c.throttled()
		}
		c.answered(toAPI, statusOf(err), time.Since(begun), err)
		if err != nil {
			span.SetStatus(codes.Error, err.Error())
		}
		span.End()
	}
}
