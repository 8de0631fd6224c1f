package cache

import (
	"cmp"
	"context"
	"errors"

	"go.opentelemetry.io/otel/trace"

	"github.com/larder-registry/larder/cache/blobs"
	"github.com/larder-registry/larder/cache/counts"
	"github.com/larder-registry/larder/cache/disk"
	"github.com/larder-registry/larder/cache/fill"
	"github.com/larder-registry/larder/cache/pins"
	"github.com/larder-registry/larder/cache/recency"
	"github.com/larder-registry/larder/cache/records"
	"github.com/larder-registry/larder/cache/tasks"
)

// Open takes the folder dir, which it creates if it does not exist, and is ready at once: it
// needs no network, and looks at the blobs in the background. An index that cannot be read
// is set aside, and a new one is made. Open fails if another process has the folder, and
// names that process. A folder on a read-only disk is served from, with an index in memory.
func Open(dir string, opts Options) (*Store, error) {
	opts = opts.withDefaults()
	folder, err := disk.Open(dir, opts.steps, opts.Log)
	if err != nil {
		return nil, err
	}
	health := disk.NewHealth(opts.Log)
	if _, err := folder.Free(); err != nil {
		health.Note(err) // it is read-only: nothing tries to write to it
	}
	index, err := records.Open(folder, health, opts.IndexWorkers, opts.Log)
	if err != nil {
		return nil, errors.Join(err, folder.Close())
	}
	if err := index.RenameUpstreams(opts.Canonical); err != nil {
		opts.Log.Warn("the upstreams that an earlier release called by other names are not served from the cache until the next start", "error", err)
	}
	s, err := newStore(folder, health, index, opts)
	if err == nil {
		err = s.observe()
	}
	if err != nil {
		return nil, errors.Join(err, index.Close(), folder.Close())
	}
	start := []func(){s.keepUp, s.keepSnapshots}
	if opts.ScrubEvery > 0 {
		start = append(start, s.blobs.KeepScrubbing)
	}
	for _, run := range start {
		_ = s.tasks.Go(run) // it is not closed yet
	}
	return s, nil
}

// newStore returns a store that runs nothing yet.
func newStore(folder *disk.Folder, health *disk.Health, index *records.Index, opts Options) (*Store, error) {
	count, err := counts.New(opts.Meter, counts.Labels{Fills: fill.Results(), Evictions: blobs.Reasons(), TagChecks: tagResults(), Proofs: proofResults()})
	if err != nil {
		return nil, err
	}
	var tracer trace.Tracer
	if opts.Tracer != nil {
		tracer = opts.Tracer.Tracer("github.com/larder-registry/larder/cache")
	}
	s := &Store{
		opts:        opts,
		log:         opts.Log,
		folder:      folder,
		space:       disk.NewSpace(folder, disk.Bounds{MaxSize: opts.MaxSize, MinFree: opts.MinFree, KeepAll: opts.KeepAll}),
		health:      health,
		index:       index,
		items:       recency.New(tick),
		counts:      count,
		tasks:       tasks.New(),
		memory:      newMemory(),
		unproven:    make(chan Unproven, maxUnproven),
		snapshotDue: make(chan struct{}, 1),
		maxRecords:  cmp.Or(opts.maxRecords, maxRecords(folder, opts.MaxSize)),
	}
	s.pins = pins.New(pins.Settings{
		Folder:       folder,
		Index:        index,
		Items:        s.items,
		Space:        s.space,
		Match:        opts.Pin,
		AllPlatforms: opts.PinAllPlatforms,
		Keep:         opts.Keep,
		KeptDigests:  opts.KeptDigests,
		Now:          opts.Now,
		Log:          opts.Log,
	})
	s.blobs = blobs.New(blobs.Settings{
		Folder: folder,
		Space:  s.space,
		Health: health,
		Items:  s.items,
		Index:  index,
		Pins:   s.pins,
		Counts: count,
		Tasks:  s.tasks,
		Fill: fill.Settings{
			Segment:     opts.Segment,
			Connections: opts.Connections,
			Retry:       opts.Retry,
			Log:         opts.Log,
			Tracer:      tracer,
		},
		Fills:      opts.fills,
		KeepAll:    opts.KeepAll,
		ScrubRate:  opts.ScrubRate,
		ScrubEvery: opts.ScrubEvery,

		VerifyOnRead: opts.VerifyOnRead,
		Came:         s.filled,
		Kept:         s.kept,
		Mismatched:   opts.Mismatched,
		Removed:      s.forgotten,
		Now:          opts.Now,
		Log:          opts.Log,
	})
	return s, nil
}

// observe exports the metrics.
func (s *Store) observe() error {
	known := func(value func() int64) func() (int64, bool) {
		return func() (int64, bool) { return value(), true }
	}
	return s.counts.Observe(
		counts.Gauge{Name: "larder.cache.size", Unit: "By", Text: "Bytes that the cache folder takes.", Value: known(s.space.Size)},
		counts.Gauge{Name: "larder.cache.unlinked", Unit: "By", Text: "Bytes of the cache folder's size that removed files take until clients have read them.", Value: known(s.blobs.Unlinked)},
		counts.Gauge{Name: "larder.cache.limit", Unit: "By", Text: "Bytes that the cache folder may take.", Value: func() (int64, bool) {
			most := s.space.MaxSize()
			return most, most > 0
		}},
		counts.Gauge{Name: "larder.cache.blobs", Unit: "{blob}", Text: "Blobs, manifests and partials in the cache.", Value: func() (int64, bool) {
			return int64(s.items.Len()), true
		}},
		counts.Gauge{Name: "larder.cache.degraded", Text: "1 while the disk does not accept writes and blobs are passed through instead; else 0.", Value: func() (int64, bool) {
			if s.health.Failure() != nil {
				return 1, true
			}
			return 0, true
		}},
		counts.Gauge{Name: "larder.disk.free", Unit: "By", Text: "Bytes of the cache's file system that are free.", Value: func() (int64, bool) {
			free, err := s.folder.Free() // a disk that cannot be asked shows in larder.cache.degraded
			return free, err == nil
		}},
	)
}

// Close ends all fills, whose partial downloads stay for the next process, and gives the
// folder up. Readers of unfinished fills get an error; open files stay readable.
func (s *Store) Close() error {
	if !s.tasks.Close() {
		return nil
	}
	s.replaceDamaged(context.Background(), false) // else there would be no snapshot
	s.saveSnapshot(context.Background())
	return errors.Join(s.counts.Close(), s.index.Close(), s.folder.Close())
}
