package cache

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/larder-registry/larder/cache/disk"
	"github.com/larder-registry/larder/cache/fill"
	"github.com/larder-registry/larder/cache/recency"
	"github.com/larder-registry/larder/cache/records"
	"github.com/opencontainers/go-digest"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/sync/semaphore"
	"golang.org/x/sync/singleflight"
)

// Store is a cache folder that this process owns. Its methods may be called
// from several goroutines at once, until Close.
type Store struct {
	opts    Options
	log     *slog.Logger
	folder  *disk.Folder
	index   *records.Index
	metrics *metrics
	health  *disk.Health
	tracer  trace.Tracer
	memory  *memory
	recency *recency.List
	space   *disk.Space
	pinned  pinned
	evicted evictions

	scanned  chan struct{} // closed when recency and space know what is there
	wake     chan struct{} // has tend evict; capacity 1
	lacks    chan struct{} // says that Lacking may have something new; capacity 1
	evicting gate          // held by the one who evicts, during I/O
	dooming  sync.Mutex    // held by the one who finds out what has expired, during I/O
	save     chan struct{} // has saveAlong write a snapshot; capacity 1

	saveFailed atomic.Bool // the latest snapshot failed, and that was logged

	rebuilding rebuilding

	scrubs *semaphore.Weighted // one: held by the Scrub that runs

	fills        *semaphore.Weighted // one a running fill
	fillSettings *fill.Settings
	flights      singleflight.Group // questions to upstreams, see share

	ctx    context.Context // of all that the store runs
	cancel context.CancelFunc
	work   sync.WaitGroup // all of it

	mu      sync.Mutex // guards what follows
	closed  bool
	filling map[digest.Digest]*fill.Fill
	held    map[digest.Digest]chan struct{} // being removed or put; see shut
	damaged map[digest.Digest]bool          // blobs whose files cannot be removed: not to be served
}

// Repository is a repository of one upstream.
type Repository = records.Repository

// ErrClosed is returned by the methods of a store that was closed.
var ErrClosed = errors.New("the store is closed")

// Open takes the folder dir, which it creates, and is ready at once: it needs
// no network, and looks at the blobs in the background. An index that cannot be
// read is set aside, and a new one begun. It fails where another process has the
// folder, and names it.
func Open(dir string, opts Options) (*Store, error) {
	opts = opts.withDefaults()
	folder, err := disk.Open(dir, opts.steps, opts.Log)
	if err != nil {
		return nil, err
	}
	m, err := newMetrics(opts.Meter)
	if err != nil {
		return nil, errors.Join(err, folder.Close())
	}
	health := disk.NewHealth(opts.Log)
	ix, err := records.Open(folder, health, opts.Log)
	if err != nil {
		return nil, errors.Join(err, folder.Close())
	}
	s := &Store{
		opts:     opts,
		log:      opts.Log,
		folder:   folder,
		index:    ix,
		metrics:  m,
		health:   health,
		tracer:   tracerOf(opts.Tracer),
		memory:   newMemory(),
		scrubs:   semaphore.NewWeighted(1),
		fills:    semaphore.NewWeighted(int64(opts.fills)),
		filling:  make(map[digest.Digest]*fill.Fill),
		held:     make(map[digest.Digest]chan struct{}),
		damaged:  make(map[digest.Digest]bool),
		recency:  recency.New(tick),
		space:    disk.NewSpace(folder, disk.Bounds{MaxSize: opts.MaxSize, MinFree: opts.MinFree, KeepAll: opts.KeepAll}),
		scanned:  make(chan struct{}),
		evicting: newGate(),
		wake:     make(chan struct{}, 1),
		lacks:    make(chan struct{}, 1),
		save:     make(chan struct{}, 1),
	}
	s.fillSettings = newFillSettings(s)
	if err := s.observe(); err != nil {
		return nil, errors.Join(err, ix.Close(), folder.Close())
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.work.Go(s.tend)
	s.work.Go(s.saveAlong)
	if opts.ScrubEvery > 0 {
		s.work.Go(s.scrubAlong)
	}
	return s, nil
}

// Close ends all fills, whose partials stay for the next process, and gives
// the folder up. Readers of unfinished fills get an error; files that were
// handed out stay readable.
func (s *Store) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	s.mu.Unlock()
	s.cancel()
	s.work.Wait()
	s.saveSnapshot(context.Background())
	return errors.Join(s.metrics.close(), s.index.Close(), s.folder.Close())
}

func (s *Store) forget(d digest.Digest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.filling, d)
}

// share asks once for all who want to know the same at the same time. The
// question outlives a client that leaves; it ends with the store.
func share[T any](ctx context.Context, s *Store, key string, ask func(ctx context.Context) (T, error)) (T, error) {
	var none T
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return none, ErrClosed
	}
	s.work.Add(1) // before Close begins to wait
	s.mu.Unlock()
	answer := s.flights.DoChan(key, func() (any, error) {
		return ask(s.inTraceOf(ctx))
	})
	done := make(chan singleflight.Result, 1)
	go func() {
		defer s.work.Done()
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

// newFillSettings returns the settings of the store's fills.
func newFillSettings(s *Store) *fill.Settings {
	set := fill.Settings{
		Store:       s,
		Segment:     s.opts.Segment,
		Connections: s.opts.Connections,
		Retry:       s.opts.Retry,
		Fetched:     s.metrics.fetched,
		Resumed:     s.metrics.resumed,
		Log:         s.log,
		Tracer:      s.tracer,
	}.WithDefaults()
	return &set
}
