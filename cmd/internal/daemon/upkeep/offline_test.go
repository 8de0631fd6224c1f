package upkeep_test

import (
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/otel/metric/noop"

	"github.com/larder-registry/larder/cache"
	"github.com/larder-registry/larder/cmd/internal/daemon/upkeep"
)

// All parts of the upkeep have something to ask.
func TestUpkeepIsSilentWhileItsUpstreamIsOffline(t *testing.T) {
	clock := time.Now()
	r := newRigAt(t, func() time.Time { return clock }, ", lifecycle: enforce", "")
	old := r.add(t, "old", 48*time.Hour)
	r.add(t, "young", 2*time.Hour)
	r.add(t, "third", time.Hour)
	r.setPolicy(t, moreThanTwo)
	r.pull(t, "old", old)
	r.apply(t)
	want := map[string]string{"old": "ecr 10"}
	if diff := gocmp.Diff(want, r.expired(t)); diff != "" {
		t.Fatalf("expired (-want +got):\n%s", diff)
	}
	alive, err := upkeep.NewKeepAlive(r.cfg, r.client, r.store, r.logger, noop.NewMeterProvider())
	if err != nil {
		t.Fatal(err)
	}
	alive.SetClock(func() time.Time { return clock })
	r.lifecycle.SetClock(func() time.Time { return clock })

	r.offline.Store(true)
	r.client.CutOffline()
	clock = clock.Add(30 * time.Hour)
	before := r.ecr.Stats()
	r.log.Reset()
	round := func() {
		t.Helper()
		r.apply(t)
		r.tags.Since(cache.Repository{Upstream: r.ecr.Host(), Name: "team/app"}, "old") // it is read again
		r.tags.ReadQueued(t.Context())
		if err := alive.Round(t.Context()); err != nil {
			t.Error(err)
		}
	}
	round()
	if diff := gocmp.Diff(before, r.ecr.Stats()); diff != "" {
		t.Errorf("the upstream got requests (-before +after):\n%s", diff)
	}
	if got := r.log.String(); strings.Contains(got, "WARN") || strings.Contains(got, "ERROR") {
		t.Errorf("the log: %s", got)
	}
	if diff := gocmp.Diff(want, r.expired(t)); diff != "" {
		t.Errorf("what had expired has not any more (-want +got):\n%s", diff)
	}

	r.offline.Store(false)
	clock = clock.Add(time.Hour)
	round()
	if gocmp.Equal(before, r.ecr.Stats()) {
		t.Error("nothing is asked when the upstream is online: the test has nothing to ask")
	}
}
