package blobs

import (
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/semaphore"

	"github.com/larder-registry/larder/cache/counts"
	"github.com/larder-registry/larder/cache/disk"
	"github.com/larder-registry/larder/cache/fill"
	"github.com/larder-registry/larder/cache/pins"
	"github.com/larder-registry/larder/cache/recency"
	"github.com/larder-registry/larder/cache/records"
	"github.com/larder-registry/larder/cache/tasks"
)

// Settings are what a Store works on, and how.
type Settings struct {
	Folder *disk.Folder
	Space  *disk.Space
	Health *disk.Health
	Items  *recency.List
	Index  *records.Index
	Pins   *pins.Pins
	Counts *counts.Counts
	Tasks  *tasks.Group
	// Fill are the settings of fills. The Store sets Store, Fetched and Resumed.
	Fill fill.Settings
	// Fills bounds the fills that run at once; further ones wait.
	Fills int
	// KeepAll evicts nothing to free space.
	KeepAll bool
	// ScrubRate is how many bytes a second the background scrub reads.
	ScrubRate int64
	// ScrubEvery is how often the background scrub reads all blobs.
	ScrubEvery time.Duration
	// Removed is called when the file of a blob was removed.
	Removed func(d digest.Digest)
	Now     func() time.Time
	Log     *slog.Logger
}

// Store has the files of blobs. Its methods may be called from several goroutines at once,
// until its Tasks are closed.
type Store struct {
	Settings
	locks    *locks
	evicting gate                // held by the goroutine that evicts, during I/O
	lowSpace chan struct{}       // asks for an eviction down to the low-water mark; capacity 1
	loaded   chan struct{}       // closed when Items and Space know what is in the folder
	slots    *semaphore.Weighted // one for each running fill
	scrubs   *semaphore.Weighted // one: held by the Scrub that runs
	evicted  evictions
}

// New returns a Store that knows nothing of what is in its folder until Load.
func New(s Settings) *Store {
	store := &Store{
		Settings: s,
		locks:    newLocks(),
		evicting: newGate(),
		lowSpace: make(chan struct{}, 1),
		loaded:   make(chan struct{}),
		slots:    semaphore.NewWeighted(int64(s.Fills)),
		scrubs:   semaphore.NewWeighted(1),
	}
	store.Fill.Store = store
	store.Fill.Fetched = func(n int) { store.Counts.FetchedBytes.Add(int64(n)) }
	store.Fill.Resumed = func() { store.Counts.Resumed.Add(1) }
	store.Fill = store.Fill.WithDefaults()
	return store
}

// Loaded is closed when it is known what is in the folder. What needs disk space waits for
// it.
func (s *Store) Loaded() <-chan struct{} { return s.loaded }

// Stat returns the size of a complete blob, and fs.ErrNotExist for any other. The digest
// must be valid.
func (s *Store) Stat(d digest.Digest) (int64, error) {
	if s.locks.isDamaged(d) {
		return 0, fs.ErrNotExist
	}
	info, err := os.Stat(s.Folder.Blob(d))
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

// Fills lists the fills that run or wait for a slot, the oldest first. It returns at once.
func (s *Store) Fills() []fill.Info {
	running := s.locks.running()
	all := make([]fill.Info, 0, len(running))
	for _, f := range running {
		all = append(all, f.Info())
	}
	slices.SortFunc(all, fill.CompareInfo)
	return all
}

// FillCount is how many fills run or wait for a slot.
func (s *Store) FillCount() int { return len(s.locks.running()) }
