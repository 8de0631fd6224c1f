package cache

import (
	"context"
	"errors"
	"io/fs"
	"testing"
	"testing/synctest"

	"github.com/larder-registry/larder/cache/blobs"
	"github.com/larder-registry/larder/cache/fill"
	"github.com/larder-registry/larder/cache/fill/filltest"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
)

// by returns the values of a counter, by one of its attributes.
func (m meter) by(t *testing.T, name, key string) map[string]int64 {
	t.Helper()
	var all metricdata.ResourceMetrics
	if err := m.reader.Collect(t.Context(), &all); err != nil {
		t.Fatal(err)
	}
	values := make(map[string]int64)
	for _, scope := range all.ScopeMetrics {
		for _, it := range scope.Metrics {
			if sum, ok := it.Data.(metricdata.Sum[int64]); ok && it.Name == name {
				for _, point := range sum.DataPoints {
					value, _ := point.Attributes.Value(attribute.Key(key))
					values[value.AsString()] += point.Value
				}
			}
		}
	}
	return values
}

// A counter that first appears with the value 1 shows no increase in Prometheus.
func TestCountersBeginAtZero(t *testing.T) {
	m := newMeter()
	openStore(t, t.TempDir(), Options{Meter: m})
	for name, key := range map[string]string{
		"larder.fills": "result", "larder.evictions": "reason", "larder.tag.revalidations": "result",
		"larder.fill.refetches": "", "larder.fill.mismatches": "", "larder.scrub.mismatches": "",
	} {
		values := m.by(t, name, key)
		if len(values) == 0 {
			t.Errorf("%s is missing", name)
		}
		if key == "reason" && len(values) != len(blobs.Reasons()) {
			t.Errorf("%s has %v", name, values)
		}
		for value, n := range values {
			if n != 0 {
				t.Errorf("%s{%s=%q} is %d", name, key, value, n)
			}
		}
	}
}

func TestRefetchesOfEvictedBlobsAreCounted(t *testing.T) {
	m := newMeter()
	opts := bounded
	opts.Meter = m
	s := openStore(t, t.TempDir(), opts)
	a, b, c := filltest.New(3<<20, 1), filltest.New(3<<20, 2), filltest.New(3<<20, 3)
	for i, o := range []*filltest.Origin{a, b, c, a, a} { // c evicts a
		pull(t, s, o)
		settle(t, s)
		want := int64(0)
		if i >= 3 {
			want = 1
		}
		if n := m.value(t, "larder.fill.refetches"); n != want {
			t.Errorf("after %d pulls %d refetches are counted, want %d", i+1, n, want)
		}
	}
	if by := m.by(t, "larder.evictions", "reason"); by[blobs.ReasonUnused] != 2 || by[blobs.ReasonExpired] != 0 {
		t.Errorf("evictions: %v", by)
	}
}

func TestTagRevalidationsAreCountedByResult(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMeter()
		s := openStore(t, t.TempDir(), Options{Tags: freshness, Meter: m})
		old, moved := newImage("old"), newImage("new")
		resolve(t, s, old.ask, Miss, old)
		resolve(t, s, old.ask, Hit, old) // without a request to the upstream
		pass(freshness.TTL)
		resolve(t, s, old.ask, Hit, old)
		pass(freshness.TTL)
		resolve(t, s, moved.ask, Miss, moved)
		pass(freshness.TTL)
		resolve(t, s, dead, Stale, moved)
		missing := func(context.Context, string, bool) (Manifest, error) { return Manifest{}, fs.ErrNotExist }
		if _, _, err := s.Tag(t.Context(), team, "none", missing); err == nil {
			t.Error("a missing tag was found")
		}
		got := m.by(t, "larder.tag.revalidations", "result")
		want := map[string]int64{tagNew: 1, tagUnchanged: 1, tagChanged: 1, tagFailed: 1, tagMissing: 1}
		for result, n := range want {
			if got[result] != n {
				t.Errorf("%s: %d, want %d", result, got[result], n)
			}
		}
	})
}

func TestFillsAreCountedByResult(t *testing.T) {
	m := newMeter()
	s := openStore(t, t.TempDir(), Options{Meter: m, Retry: Retry{First: 1, Later: 1}})
	pull(t, s, filltest.New(1000, 1))
	for seed, plan := range []filltest.Act{{Flip: 1}, {Err: errors.New("unreachable")}} {
		o := filltest.New(1000, uint64(seed)+2)
		o.Plan = func(int, Range) filltest.Act { return plan }
		if blob, err := s.Open(t.Context(), o.Digest, Source{Fetch: o.Fetch}); err == nil {
			blob.Close()
		}
	}
	settle(t, s)
	got := m.by(t, "larder.fills", "result")
	if got[fill.ResultOK] != 1 || got["mismatch"] != 1 || got["upstream"] != 1 {
		t.Errorf("%v", got)
	}
	if n := s.counts.Running.Load() + s.counts.Waiting.Load(); n != 0 {
		t.Errorf("%d fills run or wait", n)
	}
}
