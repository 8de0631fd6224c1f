package cache

import (
	"context"
	"errors"
	"io/fs"
	"sync/atomic"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/larder-registry/larder/cache/fill"
	"github.com/opencontainers/go-digest"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"
)

// metrics are the store's instruments. deploy/METRICS.md says what each is for.
// Whatever can be counted is there from the start, as 0: Prometheus does not see
// the first step of a counter that begins with it.
type metrics struct {
	bytes      metric.Int64Counter
	resumes    metric.Int64Counter
	fills      metric.Int64Counter
	durations  metric.Float64Histogram
	mismatches metric.Int64Counter
	refetches  metric.Int64Counter
	evictions  metric.Int64Counter
	freed      metric.Int64Counter
	tagChecks  metric.Int64Counter

	scrubBytes      metric.Int64Counter
	scrubMismatches metric.Int64Counter

	running, waiting atomic.Int64 // fills

	// gone are the blobs that made room for others lately.
	gone *lru.Cache[digest.Digest, struct{}]

	gauges metric.Registration // nil until observe

	counts counts // of the same, for Activity
}

// maxGone bounds what is remembered of evictions: some 200 bytes each.
const maxGone = 2048

// Values of the attribute result, beside those that an error decides.
const (
	resultOK        = "ok"
	resultMissing   = "missing"
	resultUnchanged = "unchanged"
	resultChanged   = "changed"
	resultNew       = "new"
	resultFailed    = "failed"
)

func newMetrics(provider metric.MeterProvider) (*metrics, error) {
	meter := meterOf(provider)
	gone, _ := lru.New[digest.Digest, struct{}](maxGone) // fails only for a size that is not positive
	m := metrics{gone: gone}
	var err error
	counter := func(name, unit, text, key string, values ...string) metric.Int64Counter {
		c, e := meter.Int64Counter(name, metric.WithUnit(unit), metric.WithDescription(text))
		err = errors.Join(err, e)
		if key == "" {
			c.Add(context.Background(), 0)
		}
		for _, value := range values {
			c.Add(context.Background(), 0, metric.WithAttributes(attribute.String(key, value)))
		}
		return c
	}
	m.bytes = counter("larder.fill.bytes", "By", "Bytes of blobs fetched from upstreams into the cache.", "")
	m.resumes = counter("larder.fill.resumes", "{connection}", "Upstream connections that broke or stalled and were replaced.", "")
	m.fills = counter("larder.fills", "{fill}", "Fills that ended, by result.", "result",
		fill.Results()...)
	m.mismatches = counter("larder.fill.mismatches", "{fill}", "Fills dropped because the content did not match its digest.", "")
	m.refetches = counter("larder.fill.refetches", "{fill}", "Fills of what had been evicted shortly before, to make room.", "")
	m.evictions = counter("larder.evictions", "{blob}", "Blobs and partials that were removed, by reason.", "reason",
		reasonUnused, reasonExpired, reasonRemoved, reasonGone)
	m.freed = counter("larder.eviction.bytes", "By", "Bytes of disk that evictions freed.", "")
	m.tagChecks = counter("larder.tag.revalidations", "{question}", "Questions to upstreams about tags, by result.", "result",
		resultNew, resultUnchanged, resultChanged, resultMissing, resultFailed)
	m.scrubBytes = counter("larder.scrub.bytes", "By", "Bytes of blobs at rest that were read and checked.", "")
	m.scrubMismatches = counter("larder.scrub.mismatches", "{blob}", "Blobs at rest that were damaged.", "")
	durations, e := meter.Float64Histogram("larder.fill.duration", metric.WithUnit("s"),
		metric.WithDescription("How long fills took, by result."),
		metric.WithExplicitBucketBoundaries(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600))
	m.durations = durations
	return &m, errors.Join(err, e)
}

func meterOf(provider metric.MeterProvider) metric.Meter {
	if provider == nil {
		provider = noop.NewMeterProvider()
	}
	return provider.Meter("github.com/larder-registry/larder/cache")
}

// observe makes the instruments of what the store is like at the moment.
func (s *Store) observe() error {
	meter := meterOf(s.opts.Meter)
	var err error
	gauge := func(name, unit, text string) metric.Int64ObservableGauge {
		g, e := meter.Int64ObservableGauge(name, metric.WithUnit(unit), metric.WithDescription(text))
		err = errors.Join(err, e)
		return g
	}
	running := gauge("larder.fills.running", "{fill}", "Fills that run.")
	waiting := gauge("larder.fills.waiting", "{fill}", "Fills that wait for others to end.")
	size := gauge("larder.cache.size", "By", "Bytes that the cache folder takes.")
	limit := gauge("larder.cache.limit", "By", "Bytes that the cache folder may take.")
	blobs := gauge("larder.cache.blobs", "{blob}", "Blobs, manifests and partials in the cache.")
	degraded := gauge("larder.cache.degraded", "", "1 while the disk does not take what is fetched, which is passed through instead; else 0.")
	free := gauge("larder.disk.free", "By", "Bytes of the cache's file system that are free.")
	if err != nil {
		return err
	}
	s.metrics.gauges, err = meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		o.ObserveInt64(running, s.metrics.running.Load())
		o.ObserveInt64(waiting, s.metrics.waiting.Load())
		o.ObserveInt64(size, s.space.Size())
		if s.space.MaxSize() > 0 {
			o.ObserveInt64(limit, s.space.MaxSize())
		}
		o.ObserveInt64(blobs, int64(s.recency.Len()))
		o.ObserveInt64(degraded, truth(s.health.Failure() != nil))
		if left, err := s.folder.Free(); err == nil { // a disk that cannot be asked has a metric of its own
			o.ObserveInt64(free, left)
		}
		return nil
	}, running, waiting, size, limit, blobs, degraded, free)
	return err
}

// truth is a yes or no as a gauge has it.
func truth(yes bool) int64 {
	if yes {
		return 1
	}
	return 0
}

// close ends what observe began.
func (m *metrics) close() error {
	if m.gauges == nil {
		return nil
	}
	return m.gauges.Unregister()
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

func (m *metrics) evicted(d digest.Digest, n int64, reason string) {
	m.evictions.Add(context.Background(), 1, metric.WithAttributes(attribute.String("reason", reason)))
	m.freed.Add(context.Background(), n)
	m.counts.evicted(n, reason)
	if reason == reasonUnused {
		m.gone.Add(d, struct{}{})
	}
}

// filling notes that a fill runs, until its end is counted.
func (m *metrics) filling(d digest.Digest) {
	m.running.Add(1)
	if m.gone.Remove(d) {
		m.refetches.Add(context.Background(), 1)
	}
}

// filled counts the end of a fill that was running.
func (m *metrics) filled(took time.Duration, err error) {
	defer m.running.Add(-1)
	if errors.Is(err, fill.ErrOver) {
		return // it never began
	}
	if errors.Is(err, fill.ErrMismatch) {
		m.mismatches.Add(context.Background(), 1)
	}
	by := metric.WithAttributes(attribute.String("result", fill.ResultOf(err)))
	m.fills.Add(context.Background(), 1, by)
	m.durations.Record(context.Background(), took.Seconds(), by)
}

// tagChecked counts a question about a tag that pointed at one digest, or at none
// that was known, and what it points at now.
func (m *metrics) tagChecked(before, now digest.Digest, err error) {
	result := resultChanged
	switch {
	case errors.Is(err, fs.ErrNotExist):
		result = resultMissing
	case err != nil:
		result = resultFailed
	case before == "":
		result = resultNew
	case before == now:
		result = resultUnchanged
	}
	m.tagChecks.Add(context.Background(), 1, metric.WithAttributes(attribute.String("result", result)))
}
