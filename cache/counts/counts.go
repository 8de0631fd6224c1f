// Package counts has the counters of a store. Each is kept once: the metrics and the status
// page read the same value. deploy/METRICS.md says what each metric is for.
package counts

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/opencontainers/go-digest"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"
)

// Counts are sums since the store was opened. Bytes are bytes. All of it may be used from
// several goroutines at once.
type Counts struct {
	FetchedBytes  atomic.Int64 // of blobs, from sources to disk
	Resumed       atomic.Int64 // connections that were replaced
	Mismatches    atomic.Int64 // fills whose content did not match the digest
	Refetches     atomic.Int64 // fills of what had been evicted shortly before
	FreedBytes    atomic.Int64 // of disk, by evictions
	ScrubbedBytes atomic.Int64 // of blobs at rest that were checked
	Damaged       atomic.Int64 // blobs at rest that were damaged

	Running, Waiting atomic.Int64 // fills at the moment

	Fills     Labelled // that ended, by result
	Evictions Labelled // by reason
	TagChecks Labelled // questions about tags, by result
	Proofs    Labelled // questions whether a repository has what is in the cache, by result

	durations metric.Float64Histogram // of fills
	meter     metric.Meter
	callback  metric.Registration // nil until Observe

	// lately has the blobs that were evicted for others lately.
	lately *lru.Cache[digest.Digest, struct{}]
}

// maxLately bounds what is remembered of evictions: some 200 bytes each.
const maxLately = 2048

// Labels are the values that each labelled counter has from the start, as 0: Prometheus does
// not see the first step of a counter that begins with it.
type Labels struct {
	Fills, Evictions, TagChecks, Proofs []string
}

// New returns counters at 0. A nil provider means no metrics.
func New(provider metric.MeterProvider, labels Labels) (*Counts, error) {
	if provider == nil {
		provider = noop.NewMeterProvider()
	}
	lately, _ := lru.New[digest.Digest, struct{}](maxLately) // fails only for a size that is not positive
	c := &Counts{
		Fills:     newLabelled("result", labels.Fills),
		Evictions: newLabelled("reason", labels.Evictions),
		TagChecks: newLabelled("result", labels.TagChecks),
		Proofs:    newLabelled("result", labels.Proofs),
		meter:     provider.Meter("github.com/larder-registry/larder/cache"),
		lately:    lately,
	}
	var err error
	c.durations, err = c.meter.Float64Histogram("larder.fill.duration", metric.WithUnit("s"),
		metric.WithDescription("How long fills took, by result."),
		metric.WithExplicitBucketBoundaries(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600))
	return c, err
}

// FillBegins notes that a fill runs.
func (c *Counts) FillBegins(d digest.Digest) {
	c.Running.Add(1)
	if c.lately.Remove(d) {
		c.Refetches.Add(1)
	}
}

// FillEnds counts the end of a fill, by its result. An empty result means that the fill
// never began.
func (c *Counts) FillEnds(result string, took time.Duration) {
	c.Running.Add(-1)
	if result == "" {
		return
	}
	c.Fills.Add(result)
	c.durations.Record(context.Background(), took.Seconds(), metric.WithAttributes(attribute.String("result", result)))
}

// Evicted counts an eviction. again says that a fill of the same blob soon afterwards shows
// that the cache is too small.
func (c *Counts) Evicted(d digest.Digest, bytes int64, reason string, again bool) {
	c.Evictions.Add(reason)
	c.FreedBytes.Add(bytes)
	if again {
		c.lately.Add(d, struct{}{})
	}
}

// Gauge is a value at one time, for the metrics. ok is false if it is not known.
type Gauge struct {
	Name, Unit, Text string
	Value            func() (n int64, ok bool)
}

// Observe exports the counters, and the given gauges, until Close.
func (c *Counts) Observe(gauges ...Gauge) error {
	var errs error
	var all []metric.Observable
	var reads []func(metric.Observer)
	add := func(o metric.Int64Observable, err error, read func(metric.Observer)) {
		errs = errors.Join(errs, err)
		all, reads = append(all, o), append(reads, read)
	}
	sum := func(name, unit, text string, v *atomic.Int64) {
		o, err := c.meter.Int64ObservableCounter(name, metric.WithUnit(unit), metric.WithDescription(text))
		add(o, err, func(to metric.Observer) { to.ObserveInt64(o, v.Load()) })
	}
	labelled := func(name, unit, text string, l *Labelled) {
		o, err := c.meter.Int64ObservableCounter(name, metric.WithUnit(unit), metric.WithDescription(text))
		add(o, err, func(to metric.Observer) { l.observe(to, o) })
	}
	sum("larder.fill.bytes", "By", "Bytes of blobs fetched from upstreams into the cache.", &c.FetchedBytes)
	sum("larder.fill.resumes", "{connection}", "Upstream connections that broke or stalled and were replaced.", &c.Resumed)
	sum("larder.fill.mismatches", "{fill}", "Fills dropped because the content did not match its digest.", &c.Mismatches)
	sum("larder.fill.refetches", "{fill}", "Fills of what had been evicted shortly before, to make room.", &c.Refetches)
	sum("larder.eviction.bytes", "By", "Bytes of disk that evictions freed.", &c.FreedBytes)
	sum("larder.scrub.bytes", "By", "Bytes of blobs at rest that were read and checked.", &c.ScrubbedBytes)
	sum("larder.scrub.mismatches", "{blob}", "Blobs at rest that were damaged.", &c.Damaged)
	labelled("larder.fills", "{fill}", "Fills that ended, by result.", &c.Fills)
	labelled("larder.evictions", "{blob}", "Blobs and partials that were removed, by reason.", &c.Evictions)
	labelled("larder.tag.revalidations", "{question}", "Questions to upstreams about tags, by result.", &c.TagChecks)
	labelled("larder.confirmations", "{question}", "Questions to upstreams whether a repository has what is in the cache, by result.", &c.Proofs)
	gauges = append(gauges,
		Gauge{"larder.fills.running", "{fill}", "Fills that run.", known(&c.Running)},
		Gauge{"larder.fills.waiting", "{fill}", "Fills that wait for others to end.", known(&c.Waiting)})
	for _, g := range gauges {
		o, err := c.meter.Int64ObservableGauge(g.Name, metric.WithUnit(g.Unit), metric.WithDescription(g.Text))
		add(o, err, func(to metric.Observer) {
			if n, ok := g.Value(); ok {
				to.ObserveInt64(o, n)
			}
		})
	}
	if errs != nil {
		return errs
	}
	var err error
	c.callback, err = c.meter.RegisterCallback(func(_ context.Context, to metric.Observer) error {
		for _, read := range reads {
			read(to)
		}
		return nil
	}, all...)
	return err
}

func known(v *atomic.Int64) func() (int64, bool) {
	return func() (int64, bool) { return v.Load(), true }
}

// Close ends what Observe began.
func (c *Counts) Close() error {
	if c.callback == nil {
		return nil
	}
	return c.callback.Unregister()
}

// Labelled is a counter for each of some values of one attribute.
type Labelled struct {
	key    string
	values []string
	counts []atomic.Int64
}

func newLabelled(key string, values []string) Labelled {
	return Labelled{key: key, values: values, counts: make([]atomic.Int64, len(values))}
}

// Add counts one more of a value. A value that the counter does not have is not counted.
func (l *Labelled) Add(value string) {
	for i, v := range l.values {
		if v == value {
			l.counts[i].Add(1)
		}
	}
}

// Counts returns the values that are not 0.
func (l *Labelled) Counts() map[string]int64 {
	all := make(map[string]int64)
	for i, v := range l.values {
		if n := l.counts[i].Load(); n > 0 {
			all[v] = n
		}
	}
	return all
}

func (l *Labelled) observe(to metric.Observer, o metric.Int64Observable) {
	for i, v := range l.values {
		to.ObserveInt64(o, l.counts[i].Load(), metric.WithAttributes(attribute.String(l.key, v)))
	}
}
