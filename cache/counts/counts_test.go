package counts_test

import (
	"maps"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.uber.org/goleak"

	"github.com/larder-registry/larder/cache/counts"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// collect returns the sums and gauges of a reader by name, and by the value of their label.
func collect(t *testing.T, reader metric.Reader) map[string]map[string]int64 {
	t.Helper()
	var all metricdata.ResourceMetrics
	if err := reader.Collect(t.Context(), &all); err != nil {
		t.Fatal(err)
	}
	got := make(map[string]map[string]int64)
	for _, scope := range all.ScopeMetrics {
		for _, m := range scope.Metrics {
			var points []metricdata.DataPoint[int64]
			switch data := m.Data.(type) {
			case metricdata.Sum[int64]:
				points = data.DataPoints
			case metricdata.Gauge[int64]:
				points = data.DataPoints
			}
			for _, p := range points {
				label := ""
				if attributes := p.Attributes.ToSlice(); len(attributes) > 0 {
					label = attributes[0].Value.AsString()
				}
				if got[m.Name] == nil {
					got[m.Name] = make(map[string]int64)
				}
				got[m.Name][label] += p.Value
			}
		}
	}
	return got
}

func TestMetricsAndPageReadTheSameCounters(t *testing.T) {
	reader := metric.NewManualReader()
	c, err := counts.New(metric.NewMeterProvider(metric.WithReader(reader)), counts.Labels{
		Fills: []string{"ok", "disk"}, Evictions: []string{"unused"},
	})
	if err != nil {
		t.Fatal(err)
	}
	known := true
	gauge := counts.Gauge{Name: "larder.test", Value: func() (int64, bool) { return 7, known }}
	if err := c.Observe(gauge); err != nil {
		t.Fatal(err)
	}
	if got := collect(t, reader)["larder.fills"]; !maps.Equal(got, map[string]int64{"ok": 0, "disk": 0}) {
		t.Errorf("before the first fill: %v, want 0 for each result", got)
	}
	d := digest.FromString("a blob")
	c.FillBegins(d)
	c.FillEnds("ok", time.Second)
	c.FillBegins(d)
	c.FillEnds("", time.Second) // it never began
	c.Evicted(d, 100, "unused", true)
	c.FillBegins(d)
	got := collect(t, reader)
	for name, want := range map[string]map[string]int64{
		"larder.fills":          {"ok": 1, "disk": 0},
		"larder.fills.running":  {"": 1},
		"larder.fill.refetches": {"": 1},
		"larder.evictions":      {"unused": 1},
		"larder.eviction.bytes": {"": 100},
		"larder.test":           {"": 7},
	} {
		if !maps.Equal(got[name], want) {
			t.Errorf("%s is %v, want %v", name, got[name], want)
		}
	}
	if page := c.Evictions.Counts(); !maps.Equal(page, map[string]int64{"unused": 1}) {
		t.Errorf("the page reads %v evictions", page)
	}
	known = false
	if got := collect(t, reader)["larder.test"]; got != nil {
		t.Errorf("a gauge that is not known is exported as %v", got)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}
