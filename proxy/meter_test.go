package proxy_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"
)

// maxWait is how long tests wait for something before they fail.
const maxWait = time.Minute

// meter keeps the sums of a store's counters, and lets tests wait for them. A fill is
// counted when its result is on disk.
type meter struct {
	t       testing.TB
	mu      sync.Mutex // guards what follows
	changed sync.Cond
	sums    map[string]int64
}

func newMeter(t testing.TB) *meter {
	m := &meter{t: t, sums: make(map[string]int64)}
	m.changed.L = &m.mu
	return m
}

func (m *meter) count(name string) int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.sums[name]
}

// wait returns when a counter has reached n. If that takes too long, the test fails.
func (m *meter) wait(name string, n int64) {
	m.t.Helper()
	deadline := time.Now().Add(maxWait)
	defer time.AfterFunc(maxWait, m.changed.Broadcast).Stop()
	m.mu.Lock()
	defer m.mu.Unlock()
	for m.sums[name] < n {
		if !time.Now().Before(deadline) {
			m.t.Fatalf("%s is %d after %v, want %d", name, m.sums[name], maxWait, n)
		}
		m.changed.Wait()
	}
}

func (m *meter) add(name string, n int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.sums[name] += n
	m.changed.Broadcast()
}

// provider is the meter in the form that a store takes.
type provider struct {
	noop.MeterProvider
	meter *meter
}

func (p provider) Meter(string, ...metric.MeterOption) metric.Meter {
	return instruments{meter: p.meter}
}

type instruments struct {
	noop.Meter
	meter *meter
}

func (i instruments) Int64Counter(name string, _ ...metric.Int64CounterOption) (metric.Int64Counter, error) {
	return counter{meter: i.meter, name: name}, nil
}

type counter struct {
	noop.Int64Counter
	meter *meter
	name  string
}

func (c counter) Add(_ context.Context, n int64, _ ...metric.AddOption) { c.meter.add(c.name, n) }
