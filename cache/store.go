package cache

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/larder-registry/larder/cache/blobs"
	"github.com/larder-registry/larder/cache/counts"
	"github.com/larder-registry/larder/cache/disk"
	"github.com/larder-registry/larder/cache/fill"
	"github.com/larder-registry/larder/cache/pins"
	"github.com/larder-registry/larder/cache/recency"
	"github.com/larder-registry/larder/cache/records"
	"github.com/larder-registry/larder/cache/tasks"
)

// Store is a cache folder that this process owns. Its methods may be called from several
// goroutines at once, until Close.
type Store struct {
	opts   Options
	log    *slog.Logger
	folder *disk.Folder
	space  *disk.Space
	health *disk.Health
	index  *records.Index
	items  *recency.List // what is in the folder, in the order of its last use
	pins   *pins.Pins
	blobs  *blobs.Store
	counts *counts.Counts
	tasks  *tasks.Group
	memory *memory

	questions singleflight.Group // to upstreams, see share
	tagging   sync.Mutex         // held while the record of a tag changes, in memory and in the index
	expiring  sync.Mutex         // held by the goroutine that finds out what has expired, during I/O
	joining   sync.Mutex         // held while memberships are changed, during I/O
	unproven  chan Unproven      // see Store.Unproven

	maxRecords int64       // bounds the records of the index, in bytes
	untidy     atomic.Bool // there may be records that nothing needs

	// Of the goroutine that runs keepUp:
	rebuildNotBefore time.Time // when the index is rebuilt next, if it must be
	rebuildFailed    bool      // the latest time, and that was logged
	tidying          tidying

	// Of the goroutine that runs keepSnapshots, and of Close after it has ended:
	snapshotFailed atomic.Bool   // the latest one, and that was logged
	snapshotDue    chan struct{} // asks for one; capacity 1
}

// tidying is what the goroutine that tidies the index knows.
type tidying struct {
	complete  bool      // all of the folder was read, so what is here is known
	notBefore time.Time // when it tidies next
	bytes     int64     // that records took the latest time
}

// now is the time by the clock of the options.
func (s *Store) now() time.Time { return s.opts.Now() }

// refuse remembers an upstream's refusal for Freshness.Negative.
func (s *Store) refuse(key string, err error) {
	s.memory.refuse(key, err, s.now().Add(s.opts.Tags.Negative))
}

// refused returns a refusal that is still remembered.
func (s *Store) refused(key string) error { return s.memory.refused(key, s.now()) }

// awaitLoaded waits until it is known what is on disk.
func (s *Store) awaitLoaded() error {
	select {
	case <-s.blobs.Loaded():
		return nil
	case <-s.tasks.Context().Done():
		return ErrClosed
	}
}

// share asks once for all callers that want to know the same at the same time. The question
// outlives a client that leaves; it ends with the store. Work that no client waits for, which
// [Unattended] marks, shares no question with clients: it may wait long for its turn.
func share[T any](ctx context.Context, s *Store, key string, ask func(ctx context.Context) (T, error)) (T, error) {
	var none T
	end, err := s.tasks.Begin()
	if err != nil {
		return none, err
	}
	outlives := s.tasks.ContextFor(ctx)
	if !fill.IsAttended(ctx) {
		key, outlives = "unattended/"+key, fill.Unattended(outlives)
	}
	answer := s.questions.DoChan(key, func() (any, error) { return ask(outlives) })
	done := make(chan singleflight.Result, 1)
	go func() {
		defer end()
		done <- <-answer
	}()
	select {
	case r := <-done:
		if r.Err != nil {
			return none, r.Err
		}
		return r.Val.(T), nil
	case <-ctx.Done():
		return none, context.Cause(ctx)
	}
}
