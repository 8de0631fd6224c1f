package blobs // white-box: a queued fill and the pauses of the scrub are not visible from outside

import (
	"log/slog"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"go.opentelemetry.io/otel/trace/noop"
	"go.uber.org/goleak"

	"github.com/larder-registry/larder/cache/counts"
	"github.com/larder-registry/larder/cache/disk"
	"github.com/larder-registry/larder/cache/fill"
	"github.com/larder-registry/larder/cache/pins"
	"github.com/larder-registry/larder/cache/recency"
	"github.com/larder-registry/larder/cache/records"
	"github.com/larder-registry/larder/cache/tasks"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// openStore opens a store with space for 8 MiB of blobs.
func openStore(t *testing.T) *Store {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	folder, err := disk.Open(t.TempDir(), disk.Steps{}, log)
	if err != nil {
		t.Fatal(err)
	}
	health := disk.NewHealth(log)
	index, err := records.Open(folder, health, 2, log)
	if err != nil {
		t.Fatal(err)
	}
	count, err := counts.New(nil, counts.Labels{Fills: fill.Results(), Evictions: Reasons()})
	if err != nil {
		t.Fatal(err)
	}
	space := disk.NewSpace(folder, disk.Bounds{MaxSize: 8<<20 + disk.BallastSize + disk.OverheadSlack + 1<<20})
	items, group := recency.New(time.Minute), tasks.New()
	s := New(Settings{
		Folder: folder, Space: space, Health: health, Items: items, Index: index, Counts: count, Tasks: group,
		Pins:  pins.New(pins.Settings{Folder: folder, Index: index, Items: items, Space: space, Now: time.Now, Log: log}),
		Fill:  fill.Settings{Log: log, Tracer: noop.NewTracerProvider().Tracer("")},
		Fills: 1, Came: func(digest.Digest, []fill.Source) {}, Kept: func(digest.Digest) {}, Removed: func(digest.Digest) {}, Now: time.Now, Log: log,
	})
	if err := s.Load(t.Context(), func() {}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		group.Close()
		if err := index.Close(); err != nil {
			t.Error(err)
		}
		if err := folder.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func TestReserveFailsIfAFillReplacesTheOnlyEvictableBlob(t *testing.T) {
	s := openStore(t)
	content := make([]byte, 4<<20)
	d := digest.FromBytes(content)
	if err := s.Put(t.Context(), d, content, func() error { return nil }); err != nil {
		t.Fatal(err)
	}
	s.locks.fills[d] = &queued{Fill: fill.New(t.Context(), &s.Fill, d, fill.Source{}, time.Now())} // queued, and not begun
	if err := s.ReserveBytes(t.Context(), 6<<20); err == nil {
		t.Error("a blob that a fill is about to replace was evicted")
	}
	delete(s.locks.fills, d)
	if err := s.ReserveBytes(t.Context(), 6<<20); err != nil {
		t.Errorf("without the fill: %v", err)
	}
}

func TestOnlyTheLatestEvictionsAreRemembered(t *testing.T) {
	var e evictions
	for i := range maxEvictions + 10 {
		e.add(Eviction{Bytes: int64(i)})
	}
	latest := e.list()
	if n := len(latest); n != maxEvictions || latest[0].Bytes != maxEvictions+9 || latest[n-1].Bytes != 10 {
		t.Errorf("%d evictions are remembered, from %d to %d", n, latest[n-1].Bytes, latest[0].Bytes)
	}
}

func TestBackgroundScrubWaitsUntilItIsDue(t *testing.T) {
	const every = 100 * time.Hour
	now := time.Unix(1e9, 0)
	s := &Store{Settings: Settings{ScrubEvery: every, Now: func() time.Time { return now }}}
	for name, c := range map[string]struct {
		pos  records.ScrubPosition
		want time.Duration
	}{
		"never done":                  {records.ScrubPosition{}, scrubRest},
		"in the middle":               {records.ScrubPosition{After: "sha256:…", Begun: now}, scrubRest},
		"done":                        {records.ScrubPosition{Begun: now.Add(-time.Hour)}, every - time.Hour},
		"overdue":                     {records.ScrubPosition{Begun: now.Add(-2 * every)}, scrubRest},
		"the clock was set back":      {records.ScrubPosition{Begun: now.Add(9 * every)}, every},
		"due before the hour is over": {records.ScrubPosition{Begun: now.Add(time.Minute - every)}, scrubRest},
	} {
		if got := s.untilScrub(c.pos); got != c.want {
			t.Errorf("%s: the pass begins after %v, want %v", name, got, c.want)
		}
	}
}
