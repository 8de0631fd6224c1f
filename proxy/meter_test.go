package proxy_test

import (
	"runtime"
	"testing"
	"time"

	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
)

// maxWait is how long tests wait for something before they fail.
const maxWait = time.Minute

// meter reads the counters of a store, and lets tests wait for them. A fill is counted when
// its result is on disk.
type meter struct {
	*metric.MeterProvider
	t      testing.TB
	reader *metric.ManualReader
}

func newMeter(t testing.TB) *meter {
	reader := metric.NewManualReader()
	return &meter{MeterProvider: metric.NewMeterProvider(metric.WithReader(reader)), t: t, reader: reader}
}

// count returns the sum of a counter over its labels.
func (m *meter) count(name string) (n int64) {
	m.t.Helper()
	var all metricdata.ResourceMetrics
	if err := m.reader.Collect(m.t.Context(), &all); err != nil {
		m.t.Fatal(err)
	}
	for _, scope := range all.ScopeMetrics {
		for _, it := range scope.Metrics {
			if sum, ok := it.Data.(metricdata.Sum[int64]); ok && it.Name == name {
				for _, point := range sum.DataPoints {
					n += point.Value
				}
			}
		}
	}
	return n
}

// wait returns when a counter has reached n. If that takes too long, the test fails.
func (m *meter) wait(name string, n int64) {
	m.t.Helper()
	for deadline := time.Now().Add(maxWait); m.count(name) < n; runtime.Gosched() {
		if time.Now().After(deadline) {
			m.t.Fatalf("%s is %d after %v, want %d", name, m.count(name), maxWait, n)
		}
	}
}
