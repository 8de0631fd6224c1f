package cache

import (
	"context"
	"errors"
	"io/fs"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"
)

// metrics are the store's instruments.
type metrics struct {
	bytes      metric.Int64Counter
	resumes    metric.Int64Counter
	fills      metric.Int64Counter
	mismatches metric.Int64Counter
	evictions  metric.Int64Counter
	freed      metric.Int64Counter

	scrubBytes      metric.Int64Counter
	scrubMismatches metric.Int64Counter

	counts counts // of the same, for Activity
}

func newMetrics(provider metric.MeterProvider, disk *health) (*metrics, error) {
	if provider == nil {
		provider = noop.NewMeterProvider()
	}
	meter := provider.Meter("github.com/larder-registry/larder/cache")
	var m metrics
	var err error
	counter := func(name, unit, text string) metric.Int64Counter {
		c, e := meter.Int64Counter(name, metric.WithUnit(unit), metric.WithDescription(text))
		err = errors.Join(err, e)
		return c
	}
	m.bytes = counter("larder.fill.bytes", "By", "Bytes of blobs fetched from upstreams into the cache.")
	m.resumes = counter("larder.fill.resumes", "{connection}", "Upstream connections that broke or stalled and were replaced.")
	m.fills = counter("larder.fills", "{fill}", "Fills that ended, by result.")
	m.mismatches = counter("larder.fill.mismatches", "{fill}", "Fills dropped because the content did not match its digest.")
	m.evictions = counter("larder.evictions", "{blob}", "Blobs and partials removed to make room, by reason.")
	m.freed = counter("larder.eviction.bytes", "By", "Bytes of disk that evictions freed.")
	m.scrubBytes = counter("larder.scrub.bytes", "By", "Bytes of blobs at rest that were read and checked.")
	m.scrubMismatches = counter("larder.scrub.mismatches", "{blob}", "Blobs at rest that were damaged.")
	_, e := meter.Int64ObservableGauge("larder.cache.degraded",
		metric.WithDescription("1 while the disk does not take what is fetched, which is passed through instead; else 0."),
		metric.WithInt64Callback(func(_ context.Context, o metric.Int64Observer) error {
			var degraded int64
			if disk.ill() != nil {
				degraded = 1
			}
			o.Observe(degraded)
			return nil
		}))
	return &m, errors.Join(err, e)
}

func (m *metrics) fetched(n int) {
	m.bytes.Add(context.Background(), int64(n))
	m.counts.fetched.Add(int64(n))
}

func (m *metrics) resumed() { m.resumes.Add(context.Background(), 1) }

func (m *metrics) scrubbed(n int) {
	m.scrubBytes.Add(context.Background(), int64(n))
	m.counts.scrubbed.Add(int64(n))
}

func (m *metrics) damaged() {
	m.scrubMismatches.Add(context.Background(), 1)
	m.counts.damaged.Add(1)
}

func (m *metrics) evicted(n int64, reason string) {
	m.evictions.Add(context.Background(), 1, metric.WithAttributes(attribute.String("reason", reason)))
	m.freed.Add(context.Background(), n)
	m.counts.evicted(n, reason)
}

// filled counts the end of a fill.
func (m *metrics) filled(err error) {
	if errors.Is(err, errEnded) {
		return // it never began
	}
	if errors.Is(err, errMismatch) {
		m.mismatches.Add(context.Background(), 1)
	}
	m.fills.Add(context.Background(), 1, metric.WithAttributes(attribute.String("result", result(err))))
}

func result(err error) string {
	var disk diskError
	switch {
	case err == nil:
		return "ok"
	case errors.Is(err, errMismatch), errors.Is(err, errChanged):
		return "mismatch"
	case errors.As(err, &disk):
		return "disk"
	case errors.Is(err, fs.ErrNotExist):
		return "missing"
	case errors.Is(err, fs.ErrPermission):
		return "denied"
	case errors.Is(err, context.Canceled):
		return "stopped"
	}
	return "upstream"
}
