package bucket

import (
	"context"
	"sync/atomic"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"
)

// Results of questions to the bucket, in metrics.
const (
	resultBlob     = "blob"     // a part of a blob
	resultDocument = "document" // a manifest
	resultRecord   = "record"   // a membership or a tag
	resultMissing  = "missing"  // it does not have it
	resultFailed   = "failed"   // no answer, or of no use
	resultPassed   = "passed"   // it was not asked, as it failed before
)

// What became of what was to be put, in metrics.
const (
	putDone    = "put"
	putThere   = "there"   // the bucket had it
	putFailed  = "failed"  // the bucket did not take it
	putDropped = "dropped" // too much waited, or it had left the cache
)

// metrics are what is measured of a bucket.
type metrics struct {
	questions, bytes, puts, wrongs metric.Int64Counter
	registration                   metric.Registration

	allTaken, allGiven, allPut, allWrong atomic.Int64

	// Each is made once, since they are used for each read.
	taken, given  metric.MeasurementOption
	results, ends map[string]metric.MeasurementOption
}

func newMetrics(provider metric.MeterProvider, b *Bucket) (*metrics, error) {
	if provider == nil {
		provider = noop.NewMeterProvider()
	}
	meter := provider.Meter("github.com/larder-registry/larder/upstream/bucket")
	m := &metrics{
		taken:   option("direction", "taken"),
		given:   option("direction", "given"),
		results: make(map[string]metric.MeasurementOption),
		ends:    make(map[string]metric.MeasurementOption),
	}
	var err error
	counter := func(name, unit, text string) (c metric.Int64Counter) {
		if err == nil {
			c, err = meter.Int64Counter(name, metric.WithUnit(unit), metric.WithDescription(text))
		}
		return c
	}
	m.questions = counter("larder.shared.questions", "{question}", "Questions to the bucket, by result.")
	m.bytes = counter("larder.shared.bytes", "By", "Bytes of content between this node and the bucket, by direction.")
	m.puts = counter("larder.shared.puts", "{object}", "What was to be put into the bucket, by what became of it.")
	m.wrongs = counter("larder.shared.wrong", "{object}", "Objects of the bucket that were not what their names say.")
	if err != nil {
		return nil, err
	}
	gauge := func(name, unit, text string) (g metric.Int64ObservableGauge) {
		if err == nil {
			g, err = meter.Int64ObservableGauge(name, metric.WithUnit(unit), metric.WithDescription(text))
		}
		return g
	}
	queue := gauge("larder.shared.queue", "{object}", "What waits to be put into the bucket.")
	failing := gauge("larder.shared.failing", "", "1 while the bucket fails, by operation; else 0.")
	if err != nil {
		return nil, err
	}
	for _, result := range []string{resultBlob, resultDocument, resultRecord, resultMissing, resultFailed, resultPassed} {
		m.results[result] = option("result", result)
		m.questions.Add(context.Background(), 0, m.results[result])
	}
	for _, end := range []string{putDone, putThere, putFailed, putDropped} {
		m.ends[end] = option("result", end)
		m.puts.Add(context.Background(), 0, m.ends[end])
	}
	m.bytes.Add(context.Background(), 0, m.taken)
	m.bytes.Add(context.Background(), 0, m.given)
	m.wrongs.Add(context.Background(), 0)
	read, write := option("operation", "read"), option("operation", "write")
	m.registration, err = meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		o.ObserveInt64(queue, b.writer.left.Load())
		o.ObserveInt64(failing, isSet(&b.troubles[reading]), read)
		o.ObserveInt64(failing, isSet(&b.troubles[writing]), write)
		return nil
	}, queue, failing)
	return m, err
}

func isSet(t *trouble) int64 {
	if t.text() != "" {
		return 1
	}
	return 0
}

func option(key, value string) metric.MeasurementOption {
	return metric.WithAttributeSet(attribute.NewSet(attribute.String(key, value)))
}

func (m *metrics) asked(result string) { m.questions.Add(context.Background(), 1, m.results[result]) }

func (m *metrics) took(n int) {
	m.allTaken.Add(int64(n))
	m.bytes.Add(context.Background(), int64(n), m.taken)
}

func (m *metrics) gave(n int64) {
	m.allGiven.Add(n)
	m.bytes.Add(context.Background(), n, m.given)
}

func (m *metrics) put(result string) {
	if result == putDone {
		m.allPut.Add(1)
	}
	m.puts.Add(context.Background(), 1, m.ends[result])
}

func (m *metrics) wrong() {
	m.allWrong.Add(1)
	m.wrongs.Add(context.Background(), 1)
}

func (m *metrics) close() error { return m.registration.Unregister() }
