package telemetry

import (
	"context"
	"errors"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/trace"
	notrace "go.opentelemetry.io/otel/trace/noop"

	"github.com/larder-registry/larder/upstream/pace"
)

// scope is the name of the instruments' and spans' scope.
const scope = "github.com/larder-registry/larder/upstream"

// Options are the settings of [New].
type Options struct {
	// Meter has the instruments. Nil means none.
	Meter metric.MeterProvider
	// Tracer begins a span for each request. Nil means none.
	Tracer trace.TracerProvider
	// Now is the clock by which tokens age. Nil means time.Now.
	Now func() time.Time
	// RateLimits returns the latest rate limits of upstreams, by their names in
	// metrics. Nil means none.
	RateLimits func() map[string]pace.RateLimit
}

// Telemetry has the instruments of a client of upstreams. It is safe for
// concurrent use.
type Telemetry struct {
	now        func() time.Time
	rateLimits func() map[string]pace.RateLimit
	tracer     trace.Tracer
	requests   metric.Int64Counter
	seconds    metric.Float64Histogram
	bytes      metric.Int64Counter
	throttled  metric.Int64Counter
	unsent     metric.Int64Counter
	repeats    metric.Int64Counter
	renewals   metric.Int64Counter
	gauges     metric.Registration

	mu      sync.Mutex // guards what follows
	regions map[string]bool
	tokens  map[*Tokens]token
}

// token is the time and life of an ECR token.
type token struct {
	obtained time.Time
	life     time.Duration
}

func (t token) expires() time.Time { return t.obtained.Add(t.life) }

// maxRegions bounds the regions that metrics tell apart. AWS has some forty; a
// pattern for hosts matches any.
const maxRegions = 64

// New makes the instruments. Close unregisters them.
func New(opts Options) (*Telemetry, error) {
	if opts.Meter == nil {
		opts.Meter = noop.NewMeterProvider()
	}
	if opts.Tracer == nil {
		opts.Tracer = notrace.NewTracerProvider()
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	if opts.RateLimits == nil {
		opts.RateLimits = func() map[string]pace.RateLimit { return nil }
	}
	t := &Telemetry{
		now:        opts.Now,
		rateLimits: opts.RateLimits,
		tracer:     opts.Tracer.Tracer(scope),
		regions:    make(map[string]bool),
		tokens:     make(map[*Tokens]token),
	}
	meter := opts.Meter.Meter(scope)
	var err error
	counter := func(name, unit, text string) metric.Int64Counter {
		c, e := meter.Int64Counter(name, metric.WithUnit(unit), metric.WithDescription(text))
		err = errors.Join(err, e)
		return c
	}
	t.requests = counter("larder.upstream.requests", "{request}", "Requests to upstreams, by upstream, target and status.")
	t.bytes = counter("larder.upstream.bytes", "By", "Bytes of bodies from upstreams, by upstream and target.")
	t.throttled = counter("larder.upstream.throttles", "{answer}", "Answers of upstreams that there are too many requests, by upstream.")
	t.unsent = counter("larder.upstream.unsent", "{request}", "Requests not sent, as the upstream throttles and their turn was too far, by upstream.")
	t.repeats = counter("larder.upstream.repeats", "{request}", "Requests sent again on a new connection, as no answer had begun, by upstream and by which answer was first.")
	t.renewals = counter("larder.upstream.token.renewals", "{attempt}", "Attempts to get an ECR token, by region and result.")
	seconds, e := meter.Float64Histogram("larder.upstream.request.duration", metric.WithUnit("s"),
		metric.WithDescription("Time to the headers of an upstream's answer, by upstream and target."),
		metric.WithExplicitBucketBoundaries(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20))
	t.seconds = seconds
	return t, errors.Join(err, e, t.observe(meter))
}

// observe makes the instruments that are read on demand.
func (t *Telemetry) observe(meter metric.Meter) error {
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
	t.gauges, err = meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		now := t.now()
		for region, tok := range t.firstToExpire() {
			by := metric.WithAttributes(attribute.String("region", region))
			o.ObserveFloat64(age, now.Sub(tok.obtained).Seconds(), by)
			o.ObserveFloat64(left, tok.expires().Sub(now).Seconds(), by)
		}
		for name, said := range t.rateLimits() {
			by := metric.WithAttributes(attribute.String("upstream", name))
			o.ObserveInt64(limit, int64(said.Limit), by)
			o.ObserveInt64(remaining, int64(said.Remaining), by)
		}
		return nil
	}, age, left, limit, remaining)
	return err
}

// Close unregisters the instruments that are read on demand.
func (t *Telemetry) Close() error { return t.gauges.Unregister() }

// Region returns the name that metrics have for a region: its own, or "other" once
// there are too many.
func (t *Telemetry) Region(region string) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.regions[region] && len(t.regions) >= maxRegions {
		return "other"
	}
	t.regions[region] = true
	return region
}

// firstToExpire returns the token of each region that expires first.
func (t *Telemetry) firstToExpire() map[string]token {
	t.mu.Lock()
	defer t.mu.Unlock()
	first := make(map[string]token)
	for of, tok := range t.tokens {
		if other, ok := first[of.region]; !ok || tok.expires().Before(other.expires()) {
			first[of.region] = tok
		}
	}
	return first
}

// Tokens counts the attempts to get one source's ECR tokens.
type Tokens struct {
	*Telemetry
	region string
}

// Tokens returns the counter for a source of tokens in a region.
func (t *Telemetry) Tokens(region string) *Tokens {
	tokens := &Tokens{t, t.Region(region)}
	for _, result := range []string{"ok", "failed"} {
		tokens.count(result, 0)
	}
	return tokens
}

// Obtained counts a token, which is in use from now on.
func (t *Tokens) Obtained(at time.Time, life time.Duration) {
	t.mu.Lock()
	t.tokens[t] = token{at, life}
	t.mu.Unlock()
	t.count("ok", 1)
}

// Failed counts an attempt that failed.
func (t *Tokens) Failed() { t.count("failed", 1) }

func (t *Tokens) count(result string, n int64) {
	t.renewals.Add(context.Background(), n, metric.WithAttributes(attribute.String("region", t.region), attribute.String("result", result)))
}
