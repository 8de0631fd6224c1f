package blobs

import (
	"io/fs"
	"log/slog"
	"slices"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
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
	// Fills bounds the fills that run at once; further ones wait. A quarter of them may be of
	// one upstream.
	Fills int
	// KeepAll evicts nothing to free space.
	KeepAll bool
	// ScrubRate is how many bytes a second the background scrub reads.
	ScrubRate int64
	// ScrubEvery is how often the background scrub reads all blobs.
	ScrubEvery time.Duration
	// VerifyOnRead says when a file is hashed before it is served.
	VerifyOnRead VerifyOnRead
	// Came is called before a blob gets its file, with the sources that are known to have it,
	// and Kept when it has its file.
	Came func(d digest.Digest, proven []fill.Source)
	Kept func(d digest.Digest)
	// Mismatched is called when the fill of a blob has ended since the blob did not match its digest or its size.
	Mismatched func(d digest.Digest)
	// Removed is called when the file of a blob was removed, before its records are.
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
	slots    *slots              // one for each running fill
	scrubs   *semaphore.Weighted // one: held by the Scrub that runs
	evicted  evictions
	reserved reservations
	verifier *verifier
	opened   *opened
	sizes    *lru.Cache[digest.Digest, int64]     // right ones, of blobs whose manifest does not tell them
	passed   *lru.Cache[digest.Digest, time.Time] // blobs that were passed through, and when that was logged
}

// memorySizes is how many sizes are kept in memory, with some 200 bytes each.
const memorySizes = 4096

// New returns a Store that knows nothing of what is in its folder until Load.
func New(s Settings) *Store {
	sizes, err := lru.New[digest.Digest, int64](memorySizes)
	if err != nil {
		panic(err) // only for a number that is not positive
	}
	passed, err := lru.New[digest.Digest, time.Time](memoryPassed)
	if err != nil {
		panic(err)
	}
	store := &Store{
		Settings: s,
		locks:    newLocks(),
		evicting: newGate(),
		lowSpace: make(chan struct{}, 1),
		loaded:   make(chan struct{}),
		slots:    newSlots(s.Fills),
		scrubs:   semaphore.NewWeighted(1),
		sizes:    sizes,
		passed:   passed,
		verifier: newVerifier(s.VerifyOnRead),
		opened:   newOpened(s.Space),
		reserved: reservations{all: make(map[*reserved]bool)},
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
// must be valid. A file of another size than was recorded is checked in the background.
func (s *Store) Stat(d digest.Digest) (int64, error) {
	if s.locks.isDamaged(d) {
		return 0, fs.ErrNotExist
	}
	size, err := s.Folder.StatBlob(d)
	if err == nil && !s.isRightSize(d, size, 0) {
		s.Distrust(d)
		err = fs.ErrNotExist
	}
	if err != nil {
		return 0, err
	}
	return size, nil
}

// isRightSize reports whether the size of a blob's file is the one that was recorded when
// the blob came. Without a record, as after the index was lost, it must be the expected size
// that a manifest tells, if that is positive.
func (s *Store) isRightSize(d digest.Digest, size, expected int64) bool {
	if right, ok := s.sizes.Get(d); ok && right == size {
		return true
	}
	rec, err := s.Index.Blob(d)
	if err != nil || rec.Size <= 0 {
		return expected <= 0 || expected == size
	}
	if rec.Size != size {
		return false
	}
	s.sizes.Add(d, size)
	return true
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
