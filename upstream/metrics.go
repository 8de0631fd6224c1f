package upstream

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"strconv"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/trace"

	"github.com/larder-registry/larder/upstream/reply"
)

// metrics are the client's instruments. deploy/METRICS.md says what each is for.
// It is safe for concurrent use.
type metrics struct {
	tracer   trace.Tracer
	requests metric.Int64Counter
	seconds  metric.Float64Histogram
	bytes    metric.Int64Counter
	throttle metric.Int64Counter
	unsent   metric.Int64Counter
	renewals metric.Int64Counter
	gauges   metric.Registration

	mu      sync.Mutex // guards what follows
	regions map[string]bool
	tokens  map[*tokenWatch]bool
}

// maxRegions bounds the regions that metrics tell apart. AWS has some forty; a
// pattern for hosts matches any.
const maxRegions = 64

// publicRegion is what metrics call the region of ECR Public, whose tokens it can
// do without.
const publicRegion = "public"

// tokenWatch is what metrics know of the token of one source.
type tokenWatch struct {
	region   string
	obtained time.Time
	life     time.Duration
}

func newMetrics(c *Client, opts Options) (*metrics, error) {
	provider := opts.Meter
	if provider == nil {
		provider = noop.NewMeterProvider()
	}
	meter := provider.Meter("github.com/larder-registry/larder/upstream")
	m := &metrics{
		tracer:  tracerOf(opts.Tracer),
		regions: make(map[string]bool),
		tokens:  make(map[*tokenWatch]bool),
	}
	var err error
	counter := func(name, unit, text string) metric.Int64Counter {
		c, e := meter.Int64Counter(name, metric.WithUnit(unit), metric.WithDescription(text))
		err = errors.Join(err, e)
		return c
	}
	m.requests = counter("larder.upstream.requests", "{request}", "Requests to upstreams, by upstream, target and status.")
	m.bytes = counter("larder.upstream.bytes", "By", "Bytes of bodies from upstreams, by upstream and target.")
	m.throttle = counter("larder.upstream.throttles", "{answer}", "Answers of upstreams that there are too many requests, by upstream.")
	m.unsent = counter("larder.upstream.unsent", "{request}", "Requests not sent, as the upstream throttles and their turn was too far, by upstream.")
	m.renewals = counter("larder.upstream.token.renewals", "{attempt}", "Attempts to get an ECR token, by region and result.")
	seconds, e := meter.Float64Histogram("larder.upstream.request.duration", metric.WithUnit("s"),
		metric.WithDescription("Time to the headers of an upstream's answer, by upstream and target."),
		metric.WithExplicitBucketBoundaries(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20))
	m.seconds = seconds
	return m, errors.Join(err, e, m.observe(meter, c))
}

// observe makes the instruments of what the client knows at the moment.
func (m *metrics) observe(meter metric.Meter, c *Client) error {
	age, err1 := meter.Float64ObservableGauge("larder.upstream.token.age", metric.WithUnit("s"),
		metric.WithDescription("Age of the oldest ECR token in use, by region."))
	left, err2 := meter.Float64ObservableGauge("larder.upstream.token.remaining", metric.WithUnit("s"),
		metric.WithDescription("Time until the first ECR token in use expires, by region; below 0 since it has."))
	limit, err3 := meter.Int64ObservableGauge("larder.upstream.pulls.limit", metric.WithUnit("{pull}"),
		metric.WithDescription("Pulls that an upstream allows in its window, as it says, by upstream."))
	remaining, err4 := meter.Int64ObservableGauge("larder.upstream.pulls.remaining", metric.WithUnit("{pull}"),
		metric.WithDescription("Pulls that an upstream said last are left in its window, by upstream."))
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		return err
	}
	var err error
	m.gauges, err = meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		now := c.now()
		for region, t := range m.oldest() {
			by := metric.WithAttributes(attribute.String("region", region))
			o.ObserveFloat64(age, now.Sub(t.obtained).Seconds(), by)
			o.ObserveFloat64(left, t.obtained.Add(t.life).Sub(now).Seconds(), by)
		}
		for name, said := range c.scarcest() {
			by := metric.WithAttributes(attribute.String("upstream", name))
			o.ObserveInt64(limit, int64(said.Limit), by)
			o.ObserveInt64(remaining, int64(said.Remaining), by)
		}
		return nil
	}, age, left, limit, remaining)
	return err
}

func (m *metrics) close() error { return m.gauges.Unregister() }

// regionLabel returns a region as metrics call it.
func (m *metrics) regionLabel(region string) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.regions[region] && len(m.regions) >= maxRegions {
		return "other"
	}
	m.regions[region] = true
	return region
}

// watched returns ask with its outcomes counted.
func (m *metrics) watched(region string, ask func(context.Context) (ecrToken, error)) func(context.Context) (ecrToken, error) {
	region = m.regionLabel(region)
	for _, result := range []string{"ok", "failed"} {
		m.renewals.Add(context.Background(), 0, metric.WithAttributes(attribute.String("region", region), attribute.String("result", result)))
	}
	watch := &tokenWatch{region: region}
	return func(ctx context.Context) (ecrToken, error) {
		token, err := ask(ctx)
		result := "failed"
		if err == nil {
			result = "ok"
			m.mu.Lock()
			watch.obtained, watch.life = token.obtained, token.life
			m.tokens[watch] = true
			m.mu.Unlock()
		}
		if ctx.Err() == nil { // else it is this side that ends
			m.renewals.Add(context.Background(), 1, metric.WithAttributes(attribute.String("region", region), attribute.String("result", result)))
		}
		return token, err
	}
}

// oldest returns the token of each region that expires first.
func (m *metrics) oldest() map[string]tokenWatch {
	m.mu.Lock()
	defer m.mu.Unlock()
	oldest := make(map[string]tokenWatch)
	for t := range m.tokens {
		if o, ok := oldest[t.region]; !ok || t.obtained.Add(t.life).Before(o.obtained.Add(o.life)) {
			oldest[t.region] = *t
		}
	}
	return oldest
}

// caller counts and traces what is sent on behalf of one upstream. Nil does
// nothing.
type caller struct {
	*metrics
	upstream attribute.KeyValue
}

// What a request goes to, by the attribute target.
const (
	toRegistry = "registry"
	toStorage  = "storage" // or wherever else the registry redirects to
	toTokens   = "tokens"
	toAPI      = "api"
)

// caller returns one for an upstream that metrics know by a name of which there
// are few.
func (m *metrics) caller(name string) *caller {
	c := &caller{m, attribute.String("upstream", name)}
	for _, counter := range []metric.Int64Counter{m.throttle, m.unsent} {
		counter.Add(context.Background(), 0, metric.WithAttributes(c.upstream))
	}
	return c
}

// throttled counts an answer that there are too many requests.
func (c *caller) throttled() {
	if c != nil {
		c.throttle.Add(context.Background(), 1, metric.WithAttributes(c.upstream))
	}
}

// kept counts a request that was not sent, for an error of a [limiter].
func (c *caller) kept(err error) {
	if c != nil && reply.IsThrottled(err) {
		c.unsent.Add(context.Background(), 1, metric.WithAttributes(c.upstream))
	}
}

// answered counts a request when its answer has begun, with its status, or 0.
func (c *caller) answered(target string, status int, took time.Duration, err error) {
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
	to := attribute.String("target", target)
	c.requests.Add(context.Background(), 1, metric.WithAttributes(c.upstream, to, attribute.String("status", said)))
	c.seconds.Record(context.Background(), took.Seconds(), metric.WithAttributes(c.upstream, to))
}

// received counts the bytes of a body.
func (c *caller) received(target string, n int64) {
	c.bytes.Add(context.Background(), n, metric.WithAttributes(c.upstream, attribute.String("target", target)))
}

// nameOf is what metrics call an upstream.
func nameOf(cfg Config) string { return cmp.Or(cfg.Name, cfg.Host) }

// statusOf is the HTTP status in an answer of the AWS SDK, or 0.
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
