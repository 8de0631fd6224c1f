package telemetry

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/larder-registry/larder/upstream/reply"
)

// Target is the kind of server that a request goes to.
type Target string

// The targets.
const (
	Registry Target = "registry"
	Storage  Target = "storage" // or wherever else the registry redirects to
	Token    Target = "tokens"
	API      Target = "api"
)

// Upstream counts and traces what is sent for one upstream.
type Upstream struct {
	*Telemetry
	upstream attribute.KeyValue
}

// Upstream returns the instruments for an upstream. There must be few names.
func (t *Telemetry) Upstream(name string) *Upstream {
	u := &Upstream{t, attribute.String("upstream", name)}
	for _, counter := range []metric.Int64Counter{t.throttled, t.unsent} {
		counter.Add(context.Background(), 0, metric.WithAttributes(u.upstream))
	}
	for _, used := range []bool{false, true} {
		u.countRepeats(used, 0)
	}
	return u
}

// Name returns the name that metrics have for the upstream.
func (u *Upstream) Name() string { return u.upstream.Value.AsString() }

// Throttled counts an answer that there are too many requests.
func (u *Upstream) Throttled() {
	u.throttled.Add(context.Background(), 1, metric.WithAttributes(u.upstream))
}

// Unsent counts a request that was not sent, if err is that of a [pace.Limiter]
// that throttles.
func (u *Upstream) Unsent(err error) {
	if reply.IsThrottled(err) {
		u.unsent.Add(context.Background(), 1, metric.WithAttributes(u.upstream))
	}
}

// Repeated counts a request that was sent again, as no answer had begun. used says that
// the answer to the second one came first.
func (u *Upstream) Repeated(used bool) { u.countRepeats(used, 1) }

func (u *Upstream) countRepeats(used bool, n int64) {
	first := "first"
	if used {
		first = "second"
	}
	u.repeats.Add(context.Background(), n, metric.WithAttributes(u.upstream, attribute.String("answer", first)))
}

// Begin is called just before a request is sent. It tells the registry, and no
// other target, the request's trace (W3C "Trace Context"). The span has neither
// headers nor the query, which may be credentials; it has the path for the registry
// only.
func (u *Upstream) Begin(req *http.Request, target Target) (*http.Request, *Call) {
	ctx, span := u.tracer.Start(req.Context(), req.Method+" "+string(target), trace.WithSpanKind(trace.SpanKindClient))
	if span.IsRecording() {
		span.SetAttributes(
			attribute.String("larder.upstream", u.Name()),
			attribute.String("http.request.method", req.Method),
			attribute.String("server.address", req.URL.Host))
		if target == Registry {
			span.SetAttributes(attribute.String("url.path", req.URL.Path))
		}
	}
	if target == Registry && span.SpanContext().IsValid() {
		propagation.TraceContext{}.Inject(ctx, propagation.HeaderCarrier(req.Header))
		req.Header.Del("Tracestate") // the registry must not see other vendors' state
	}
	return req.WithContext(ctx), &Call{u, target, span, time.Now()}
}

// answered counts a request when its answer has begun, with its status, or 0.
func (u *Upstream) answered(target Target, status int, took time.Duration, err error) {
	said := strconv.Itoa(status)
	switch {
	case status != 0:
	case errors.Is(err, reply.ErrTimeout), errors.Is(err, context.DeadlineExceeded):
		said = "timeout"
	case errors.Is(err, context.Canceled):
		said = "canceled"
	default:
		said = "error"
	}
	to := attribute.String("target", string(target))
	u.requests.Add(context.Background(), 1, metric.WithAttributes(u.upstream, to, attribute.String("status", said)))
	u.seconds.Record(context.Background(), took.Seconds(), metric.WithAttributes(u.upstream, to))
}

// Call is a request on its way. Its span lasts until the answer's body is closed.
type Call struct {
	*Upstream
	target Target
	span   trace.Span
	begun  time.Time
}

// End is called with the answer, or the error in its place. It wraps the answer's
// body, to count its bytes.
func (c *Call) End(resp *http.Response, err error) {
	if err != nil {
		c.answered(c.target, 0, time.Since(c.begun), err)
		c.span.SetStatus(codes.Error, err.Error())
		c.span.End()
		return
	}
	c.answered(c.target, resp.StatusCode, time.Since(c.begun), nil)
	c.span.SetAttributes(attribute.Int("http.response.status_code", resp.StatusCode))
	if resp.StatusCode >= http.StatusInternalServerError || resp.StatusCode == http.StatusTooManyRequests {
		c.span.SetStatus(codes.Error, http.StatusText(resp.StatusCode))
	}
	resp.Body = &countedBody{ReadCloser: resp.Body, call: c}
}

// received counts the bytes of the answer's body, and ends the span.
func (c *Call) received(n int64) {
	c.bytes.Add(context.Background(), n, metric.WithAttributes(c.upstream, attribute.String("target", string(c.target))))
	c.span.SetAttributes(attribute.Int64("http.response.body.size", n))
	c.span.End()
}

// countedBody is an answer's body. As with every body of net/http, another
// goroutine may call Close to end a Read that waits.
type countedBody struct {
	io.ReadCloser
	call *Call
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
	b.over.Do(func() { b.call.received(b.n.Load()) })
	return err
}

// BeginAPI is Begin for a call of an AWS API, whose requests the SDK sends. The
// caller calls end when the call is over, and says whether it was throttled.
func (u *Upstream) BeginAPI(ctx context.Context, operation string) (_ context.Context, end func(err error, throttled bool)) {
	begun := time.Now()
	ctx, span := u.tracer.Start(ctx, operation, trace.WithSpanKind(trace.SpanKindClient), trace.WithAttributes(attribute.String("larder.upstream", u.Name())))
	return ctx, func(err error, throttled bool) {
		if throttled {
			u.Throttled()
		}
		u.answered(API, statusOf(err), time.Since(begun), err)
		if err != nil {
			span.SetStatus(codes.Error, err.Error())
		}
		span.End()
	}
}

// statusOf returns the HTTP status in an error of the AWS SDK, or 0.
func statusOf(err error) int {
	if err == nil {
		return http.StatusOK
	}
	var refusal interface{ HTTPStatusCode() int }
	if errors.As(err, &refusal) {
		return refusal.HTTPStatusCode()
	}
	return 0
}
