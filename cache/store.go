package cache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/sync/semaphore"
	"golang.org/x/sync/singleflight"
	"golang.org/x/sys/unix"
)

// Options are the settings of a store. The zero value is a working one.
type Options struct {
	// MaxSize is how many bytes the folder may take, with all that is in it. 0
	// means any number.
	MaxSize int64
	// MinFree is how many bytes of the file system stay free. There are always
	// some, for the index.
	MinFree int64
	// LowWater is the part of MaxSize at which an eviction ends. 0 means 0.9.
	LowWater float64
	// Tags is how long answers about tags and missing things hold.
	Tags Freshness
	// Segment is how many bytes a connection asks for at a time, and the most
	// that a client may have to wait for before the byte it wants. Blobs of
	// more than two segments are fetched in parallel. 0 means 8 MiB: 128 MiB at 50
	// MB/s a connection took 0.75, 0.76 and 0.87 s with segments of 2, 8 and 16
	// MiB, and with 50 ms of latency 1.9, 1.2 and 1.0 s (four connections each;
	// one connection: 2.4 and 3.3 s).
	Segment int64
	// Connections is how many connections one fill may use. 0 means 4.
	Connections int
	// Leapers is how many more a fill may use for clients that wait at offsets
	// which nobody is near. 0 means 8.
	Leapers int
	// Spare bounds, over all fills, the connections beyond the first of each.
	// 0 means 32.
	Spare int
	// Fills bounds the fills that run at once; further ones wait. 0 means 256.
	Fills int
	// ScrubEvery is how often all blobs are read and checked in the background.
	// 0 means a week; negative means never.
	ScrubEvery time.Duration
	// ScrubRate is how many bytes of that are read in a second. 0 means 20 MB: a
	// general purpose cloud volume has at least 125 MB/s, a spinning disk about as
	// much, so the workloads keep five sixths of it, and 50 GiB take three quarters
	// of an hour.
	ScrubRate int64
	// Pin says which images are pinned as they come, and as they are found when
	// the store is opened, by their names: <upstream>/<repository>:<tag>. Nil
	// means none.
	Pin func(image string) bool
	// PinAllPlatforms has these pins be of all platforms: see
	// [Store.PinAllPlatforms].
	PinAllPlatforms bool
	// KeepAll has nothing be evicted to make room: MaxSize and MinFree bound what
	// may be pinned, and no more. It is for a command that has the folder while no
	// daemon runs, and may not know the bounds that the daemon was given.
	KeepAll bool
	// Retry is how broken connections are resumed.
	Retry Retry
	// Log is where the store reports. Nil means slog.Default().
	Log *slog.Logger
	// Meter has the instruments. Nil means none.
	Meter metric.MeterProvider
	// Tracer begins a span for each fill, in the trace of the request that began
	// it. Nil means none.
	Tracer trace.TracerProvider
	// Now is the clock for tags. Nil means time.Now.
	Now func() time.Time

	disk disk // of a test that has steps fail
}

func (o Options) withDefaults() Options {
	setDefault(&o.LowWater, 0.9)
	setDefault(&o.Segment, 8<<20)
	setDefault(&o.Connections, 4)
	setDefault(&o.Leapers, 8)
	setDefault(&o.Spare, 32)
	setDefault(&o.Fills, 256)
	setDefault(&o.ScrubEvery, scrubEvery)
	setDefault(&o.ScrubRate, scrubRate)
	o.Retry = o.Retry.withDefaults()
	if o.Log == nil {
		o.Log = slog.Default()
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return o
}

// Store is a cache folder that this process owns. Its methods may be called
// from several goroutines at once, until Close.
type Store struct {
	opts    Options
	log     *slog.Logger
	layout  layout
	lock    *os.File
	index   *index
	metrics *metrics
	health  *health
	tracer  trace.Tracer
	memory  *memory
	recency *recency
	space   *space
	pinned  pinned
	evicted evictions

	scanned  chan struct{} // closed when recency and space know what is there
	wake     chan struct{} // has tend evict; capacity 1
	lacks    chan struct{} // says that Lacking may have something new; capacity 1
	evicting gate          // held by the one who evicts, during I/O
	dooming  sync.Mutex    // held by the one who finds out what has expired, during I/O
	save     chan struct{} // has saveAlong write a snapshot; capacity 1
	saved    saved

	rebuilding rebuilding

	scrubs *semaphore.Weighted // one: held by the Scrub that runs

	fills   *semaphore.Weighted // one a running fill
	spare   *semaphore.Weighted // one a connection beyond a fill's first
	flights singleflight.Group  // questions to upstreams, see share

	ctx    context.Context // of all that the store runs
	cancel context.CancelFunc
	work   sync.WaitGroup // all of it

	mu      sync.Mutex // guards what follows
	closed  bool
	filling map[digest.Digest]*fill
	held    map[digest.Digest]chan struct{} // being removed or put; see shut
	damaged map[digest.Digest]bool          // blobs whose files cannot be removed: not to be served
}

// ErrClosed is returned by the methods of a store that was closed.
var ErrClosed = errors.New("the store is closed")

// Open takes the folder dir, which it creates, and is ready at once: it needs
// no network, and looks at the blobs in the background. An index that cannot be
// read is set aside, and a new one begun. It fails where another process has the
// folder, and names it.
func Open(dir string, opts Options) (*Store, error) {
	opts = opts.withDefaults()
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("find the cache folder: %w", err)
	}
	l := layout{dir: dir, disk: opts.disk}
	if err := l.create(); err != nil {
		return nil, err
	}
	lock, err := l.acquire()
	if err != nil {
		return nil, err
	}
	disk := &health{log: opts.Log}
	m, err := newMetrics(opts.Meter)
	if err == nil {
		err = l.claim(opts.Log)
	}
	if err == nil {
		err = l.sweep(opts.Log)
	}
	if err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	ix, err := openIndex(l, opts.Log)
	if err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	s := &Store{
		opts:     opts,
		log:      opts.Log,
		layout:   l,
		lock:     lock,
		index:    ix,
		metrics:  m,
		health:   disk,
		tracer:   tracerOf(opts.Tracer),
		memory:   newMemory(),
		scrubs:   semaphore.NewWeighted(1),
		fills:    semaphore.NewWeighted(int64(opts.Fills)),
		spare:    semaphore.NewWeighted(int64(opts.Spare)),
		filling:  make(map[digest.Digest]*fill),
		held:     make(map[digest.Digest]chan struct{}),
		damaged:  make(map[digest.Digest]bool),
		recency:  newRecency(),
		space:    newSpace(l, opts),
		scanned:  make(chan struct{}),
		evicting: newGate(),
		wake:     make(chan struct{}, 1),
		lacks:    make(chan struct{}, 1),
		save:     make(chan struct{}, 1),
		saved:    saved{changes: -1},
	}
	s.index.health = s.health
	if err := s.observe(); err != nil {
		return nil, errors.Join(err, ix.close(), lock.Close())
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
	return errors.Join(s.metrics.close(), s.index.close(), s.lock.Close())
}

// State says how an answer came about.
type State string

// What the X-Cache header says: served from here; fetched for this answer;
// served from here although the upstream could not confirm it; passed through
// without being kept.
const (
	Hit    State = "HIT"
	Miss   State = "MISS"
	Stale  State = "STALE"
	Bypass State = "BYPASS"
)

// Blob is an open blob. It belongs to one request, which closes it.
type Blob struct {
	// A complete blob is an *os.File here, so that the kernel can copy it to a
	// socket, unless it has a Content. Otherwise reads block until the bytes arrive, or until the
	// context given to [Store.Open] ends.
	io.ReadSeekCloser
	// Content is a small blob's bytes, where they are in memory. They must not be
	// changed.
	Content []byte
	Size    int64
	State   State
}

// Err returns what cut the reading short, such as content that did not verify.
// The client must not take what it got for the whole.
func (b *Blob) Err() error {
	if r, ok := b.ReadSeekCloser.(*reader); ok {
		return r.Err()
	}
	return nil
}

// Open opens a blob: from disk, or by joining the fill that brings it, which
// it begins if there is none. It blocks until the size is known. The caller has
// asked [Store.Holds] whether the client may have the blob. hint is the size if
// it is known from a manifest, else 0; it only saves a request.
//
// Reads return an error where the content turns out not to match its digest,
// and never its last byte.
func (s *Store) Open(ctx context.Context, dgst digest.Digest, hint int64, fetch Fetch) (*Blob, error) {
	if err := CheckDigest(dgst); err != nil {
		return nil, fmt.Errorf("open blob %q: %w", dgst, err)
	}
	if dgst == emptySHA256 || dgst == emptySHA512 {
		return &Blob{ReadSeekCloser: held{bytes.NewReader(nil)}, State: Hit}, nil
	}
	again := false
	for {
		f, own, file, err := s.join(ctx, dgst, hint, fetch)
		if err != nil {
			return nil, fmt.Errorf("open blob %s: %w", dgst, err)
		}
		if file != nil {
			s.recency.use(dgst, s.opts.Now())
			return hit(file)
		}
		blob, err := f.open(ctx, own)
		switch {
		case errors.Is(err, errEnded):
		case err != nil && !own && !again && ctx.Err() == nil && !errors.Is(err, errMismatch):
			again = true // it was another client's source, perhaps another registry, that failed
		default:
			return blob, err
		}
	}
}

// The blob without bytes needs neither a disk nor a source.
const (
	emptySHA256 = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	emptySHA512 = "sha512:cf83e1357eefb8bdf1542850d66d8007d620e4050b5715dc83f4a921d36ce9ce" +
		"47d0d13c5d85f2b0ff8318d2877eec2f63b931bd47417a81a538327af927da3e"
)

// join returns the file of a blob that is complete, else its fill, and whether
// that begins with this request. The fill is looked up first and leaves the map
// only when its outcome is on disk, so nothing falls between the two.
func (s *Store) join(ctx context.Context, dgst digest.Digest, hint int64, fetch Fetch) (f *fill, own bool, file *os.File, err error) {
	s.mu.Lock()
	f = s.filling[dgst]
	damaged := s.damaged[dgst]
	s.mu.Unlock()
	if f != nil {
		return f, false, nil, nil
	}
	if !damaged {
		file, err = os.Open(s.layout.blob(dgst))
		switch {
		case errors.Is(err, unix.EIO): // it is fetched again
			s.Distrust(dgst)
		case err == nil || !errors.Is(err, fs.ErrNotExist):
			return nil, false, file, err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, false, nil, ErrClosed
	}
	if f := s.filling[dgst]; f != nil {
		return f, false, nil, nil
	}
	f = newFill(ctx, s, dgst, hint, fetch)
	s.filling[dgst] = f
	s.work.Go(f.run)
	return f, true, nil, nil
}

func hit(file *os.File) (*Blob, error) {
	info, err := file.Stat()
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return &Blob{ReadSeekCloser: file, Size: info.Size(), State: Hit}, nil
}

// open waits for the size and returns a reader. It returns errEnded when the
// fill had failed before this client came: the client begins another, unless
// this one was its own.
func (f *fill) open(ctx context.Context, own bool) (*Blob, error) {
	f.link(ctx)
	reads := false
	defer func() {
		if own && !reads {
			f.release()
		}
	}()
	f.mu.Lock()
	late := f.err != nil && !own
	f.mu.Unlock()
	if late {
		select {
		case <-f.done:
			return nil, errEnded
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	select {
	case <-f.ready:
	case <-ctx.Done():
		return nil, f.tooLate(ctx)
	}
	if f.acquire(own) {
		reads = true
		return &Blob{ReadSeekCloser: newReader(ctx, f), Size: f.size, State: Miss}, nil
	}
	select {
	case <-f.done:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	var disk diskError
	switch {
	case f.err == nil || errors.Is(f.err, errEnded):
		return nil, errEnded // complete meanwhile: the next look finds the file
	case errors.As(f.err, &disk) && f.size > 0:
		r := &reader{ctx: ctx, fill: f, pass: f.passthrough(ctx)}
		return &Blob{ReadSeekCloser: r, Size: f.size, State: Bypass}, nil
	}
	return nil, fmt.Errorf("fetch blob %s: %w", f.digest, f.err)
}

// tooLate is the error of one who waits no more for the first answer: what the
// fill waits for belongs to it.
func (f *fill) tooLate(ctx context.Context) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.trouble == nil {
		return context.Cause(ctx)
	}
	return fmt.Errorf("%w: %w", context.Cause(ctx), f.trouble)
}

// Stat returns the size of a complete blob, and fs.ErrNotExist for any other.
func (s *Store) Stat(dgst digest.Digest) (int64, error) {
	if err := CheckDigest(dgst); err != nil {
		return 0, err
	}
	s.mu.Lock()
	damaged := s.damaged[dgst]
	s.mu.Unlock()
	if damaged {
		return 0, fs.ErrNotExist
	}
	info, err := os.Stat(s.layout.blob(dgst))
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

// setDamaged says whether the file of a blob, which should not be there, is none
// to be served.
func (s *Store) setDamaged(d digest.Digest, damaged bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if damaged {
		s.damaged[d] = true
	} else {
		delete(s.damaged, d)
	}
}

func (s *Store) forget(f *fill) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.filling, f.digest)
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
