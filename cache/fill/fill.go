package fill

import (
	"cmp"
	"context"
	"hash"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
	"golang.org/x/sync/semaphore"
)

// Store is what a fill needs of the store that owns it.
type Store interface {
	// Reserve reserves disk space for a blob of size bytes, and creates its partial. Any
	// error but the context's is one of this node's disk: the blob is passed through.
	Reserve(ctx context.Context, d digest.Digest, size int64) (*Partial, error)
	// Commit makes a verified partial a blob, which proven are known to have. Clients have had
	// the last byte already and read on from the same file: an error costs only the caching.
	Commit(d digest.Digest, p *Partial, proven []Source) error
	// Abandon ends a fill that failed. p is nil if it had no partial. It is kept, to be
	// resumed, if have says how many bytes of it may yet be of use.
	Abandon(d digest.Digest, p *Partial, have int64, cause error)
}

// Settings are those of all fills of a store. The zero value of each field but Store means
// what is said there.
type Settings struct {
	Store Store
	// Segment is how many bytes a connection asks for at a time. 0 means 8 MiB: 128 MiB at
	// 50 MB/s a connection took 0.75, 0.76 and 0.87 s with segments of 2, 8 and 16 MiB, and
	// with 50 ms of latency 1.9, 1.2 and 1.0 s (four connections each; one connection: 2.4
	// and 3.3 s).
	Segment int64
	// Connections is how many connections one fill may use. 0 means 4.
	Connections int
	// Jumpers is how many more a fill may use for clients that wait at offsets which no
	// connection is near. 0 means 8.
	Jumpers int
	// Spare bounds, over all fills, the connections beyond the first of each. Nil means 32.
	Spare *semaphore.Weighted
	// Retry is how broken connections are replaced.
	Retry Retry
	// Fetched is called with the number of bytes that were written to disk, and Resumed
	// when a broken connection is replaced. Nil means not at all.
	Fetched func(n int)
	Resumed func()
	// Log is where fills report. Nil means slog.Default().
	Log *slog.Logger
	// Tracer begins a span for each fill. Nil means none.
	Tracer trace.Tracer
}

// WithDefaults returns the settings with all zero values replaced.
func (s Settings) WithDefaults() Settings {
	setDefault(&s.Segment, 8<<20)
	setDefault(&s.Connections, 4)
	setDefault(&s.Jumpers, 8)
	if s.Spare == nil {
		s.Spare = semaphore.NewWeighted(32)
	}
	s.Retry = s.Retry.withDefaults()
	if s.Fetched == nil {
		s.Fetched = func(int) {}
	}
	if s.Resumed == nil {
		s.Resumed = func() {}
	}
	if s.Log == nil {
		s.Log = slog.Default()
	}
	if s.Tracer == nil {
		s.Tracer = noop.NewTracerProvider().Tracer("")
	}
	return s
}

// Fill brings one blob to disk. It begins with the first request for the blob. Once a client
// has asked for the blob, no departure ends the fill.
type Fill struct {
	set    *Settings
	digest digest.Digest
	log    *slog.Logger
	began  time.Time

	span   trace.Span
	ctx    context.Context // of the connections
	cancel context.CancelCauseFunc
	conns  sync.WaitGroup

	ready   chan struct{} // closed when the fill is no longer opening
	done    chan struct{} // closed when the outcome is final and on disk
	outcome error         // why the blob is not on disk; set before done is closed

	hash     hash.Hash     // belongs to the goroutine that has set hashing; read-only once done is closed
	hashable chan struct{} // tells Run to look at the front; capacity 1

	mu      sync.Mutex // guards what follows; no I/O under it
	state   state
	err     error    // why it failed
	size    int64    // 0 until an answer or a partial tells it
	part    *Partial // nil until the size is known, and if the disk did not take it
	users   int      // that may still read part's data: Run, the client it began for, and each reader
	segs    segments
	front   int64 // bytes hashed
	hashing bool  // a goroutine hashes the bytes behind the front

	working    int       // connections that have not ended
	quietUntil time.Time // no connections are added before
	ranges     bool      // the source honours them: more connections are of use
	trouble    error     // why a connection or a source was replaced last
	waiters    []*waiter

	sources   []*origin   // of all clients so far
	source    *origin     // the active one of them
	clients   int         // that wait for the size, or read
	fetchers  int         // callers of Fetch
	asked     bool        // a client has asked for the blob
	attended  attention   // begins when it has, or a caller of Fetch whose context is attended
	pace      *time.Timer // runs judgePace; nil until the fill starts
	arrived   int64       // bytes that sources have brought
	judged    int64       // arrived, when the pace was judged last
	idleSince time.Time   // the fill has brought next to nothing, and no client waits, since then

	turns turns // of the connections: has its own lock
}

// state is how far a fill is.
type state uint8

const (
	opening  state = iota // clients do not know the size yet
	filling               // clients read what has arrived
	verified              // the digest matched: the last byte may be read
	failed                // err says why; it may still become verified if all bytes are here
)

// waiter is a client that waits for the byte at off.
type waiter struct {
	off   int64
	until int64         // the end of what the client asked for; 0 if that is not known
	wake  chan struct{} // capacity 1
}

// New returns a fill for a client that calls Open, as its own. The caller of New runs it with
// Run. ctx is the store's own: its end ends the fill. source is that of the client.
func New(ctx context.Context, s *Settings, d digest.Digest, source Source, began time.Time) *Fill {
	f := newFill(ctx, s, d, source, began)
	f.users++
	f.clients, f.asked = 1, true
	f.attended.begin()
	return f
}

// NewFetch is New for a caller of Fetch instead of a client. attended is [IsAttended] of the
// caller's context.
func NewFetch(ctx context.Context, s *Settings, d digest.Digest, source Source, began time.Time, attended bool) *Fill {
	f := newFill(ctx, s, d, source, began)
	f.fetchers = 1
	if attended {
		f.attended.begin()
	}
	return f
}

func newFill(ctx context.Context, s *Settings, d digest.Digest, source Source, began time.Time) *Fill {
	f := &Fill{
		set:      s,
		digest:   d,
		log:      s.Log.With("digest", d),
		began:    began,
		ready:    make(chan struct{}),
		done:     make(chan struct{}),
		hash:     d.Algorithm().Hash(),
		hashable: make(chan struct{}, 1),
		attended: make(attention),
		users:    1,
	}
	f.startSpan(ctx)
	f.ctx = context.WithValue(f.ctx, attentionKey{}, f.attended)
	f.useLocked(f.joinLocked(source)) // no other goroutine has the fill yet
	return f
}

// Run brings the blob, and returns when the outcome is on disk. old is what an earlier
// process left of it, or nil; if err is not nil the fill fails with it at once. The caller
// then forgets the fill, and calls End.
func (f *Fill) Run(old *Partial, err error) error {
	if err == nil {
		f.start(old)
		err = f.verify()
	}
	if err != nil {
		err = f.fail(err)
	}
	f.cancel(ErrOver)
	f.conns.Wait()
	f.stopPace()
	if err == nil {
		err = f.set.Store.Commit(f.digest, f.part, f.proven())
	} else {
		f.set.Store.Abandon(f.digest, f.part, f.segs.have(), err)
	}
	f.outcome = err
	f.endSpan(err)
	f.release()
	return err
}

// stopPace ends the judging of the pace.
func (f *Fill) stopPace() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.pace != nil {
		f.pace.Stop()
	}
}

// End says that the outcome can be found on disk, and that the store has forgotten the
// fill.
func (f *Fill) End() { close(f.done) }

// Done is closed by End.
func (f *Fill) Done() <-chan struct{} { return f.done }

// Context ends when the fill fails, or its store is closed.
func (f *Fill) Context() context.Context { return f.ctx }

// start starts the first connections: where an earlier process stopped, or at offset 0.
// Clients wait for the source's first answer even if there are bytes already: a source that
// is dead must be an error before it is half a body.
func (f *Fill) start(old *Partial) {
	if old != nil {
		f.log.Info("resuming a partial blob", "size", old.size)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.pace = time.AfterFunc(f.set.Retry.Patience, f.judgePace)
	if old == nil {
		f.connectLocked(&connection{fill: f, first: f.firstRangeLocked()})
		return
	}
	f.part, f.size, f.segs = old, old.size, newSegments(old.size)
	f.connectLocked(&connection{fill: f, noted: f.claimNotedLocked(old.notes)})
	if seg := f.claimLocked(); seg != nil {
		f.connectLocked(&connection{fill: f, seg: seg})
	}
}

// firstRangeLocked is how many bytes to ask for first, when only a manifest may have told the
// size.
func (f *Fill) firstRangeLocked() int64 {
	if size := f.source.size; 0 < size && size <= 2*f.set.Segment {
		return size
	}
	return f.set.Segment
}

// place reserves the disk space for a blob whose size has just become known, creates its
// partial, and claims the first segment of n bytes.
func (f *Fill) place(size, n int64) (*segment, error) {
	part, err := f.set.Store.Reserve(f.ctx, f.digest, size)
	if err != nil && f.ctx.Err() != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.size = size // if there is no partial, readers that go around the disk need it
	if err != nil {
		return nil, DiskError{err}
	}
	f.part, f.segs = part, newSegments(size)
	return f.segs.claim(0, n), nil
}

// publishLocked lets clients have the size.
func (f *Fill) publishLocked() {
	if f.state == opening {
		f.state = filling
		close(f.ready)
	}
}

// fail ends the fill with its first error, which it returns. It has no effect on a fill
// that is verified.
func (f *Fill) fail(err error) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.failLocked(err)
	return f.err
}

func (f *Fill) failLocked(err error) {
	switch f.state {
	case verified, failed:
		return
	case opening:
		close(f.ready)
	case filling:
	}
	f.state, f.err = failed, err
	f.cancel(err)
	f.wakeLocked(0, max(f.size, 1))
	f.nudgeLocked()
}

// wakeLocked wakes the clients that wait for a byte in [from,to).
func (f *Fill) wakeLocked(from, to int64) {
	f.waiters = slices.DeleteFunc(f.waiters, func(w *waiter) bool {
		if w.off < from || w.off >= to {
			return false
		}
		w.wake <- struct{}{}
		return true
	})
}

// release gives one right to the partial's data file up. The last one closes it.
func (f *Fill) release() {
	f.mu.Lock()
	f.users--
	last := f.users == 0 && f.part != nil
	f.mu.Unlock()
	if last {
		f.part.closeData()
	}
}

// Info is the state of a fill at one time. Sizes are in bytes.
type Info struct {
	Digest digest.Digest `json:"digest"`
	// Size is 0 until the source has told it.
	Size int64 `json:"size"`
	// Have is what is on disk, in any order, with what an earlier process left.
	Have int64 `json:"have"`
	// Connections is how many fetch from the source at the moment.
	Connections int       `json:"connections"`
	Since       time.Time `json:"since"`
}

// Info returns the state of the fill. It returns at once.
func (f *Fill) Info() Info {
	f.mu.Lock()
	defer f.mu.Unlock()
	return Info{Digest: f.digest, Size: f.size, Have: f.segs.have(), Connections: f.working, Since: f.began}
}

// CompareInfo orders fills by their age, the oldest first.
func CompareInfo(a, b Info) int {
	return cmp.Or(a.Since.Compare(b.Since), cmp.Compare(a.Digest, b.Digest))
}
