package cache

import (
	"context"
	"errors"
	"hash"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/larder-registry/larder/cache/disk"
	"github.com/opencontainers/go-digest"
	"go.opentelemetry.io/otel/trace"
)

// fill brings one blob to disk, once, for everyone who asks meanwhile. The
// store owns it: it begins with the first request, and no client's departure
// ends it.
//
// The connections write segments. What one of them adds to the contiguous front
// it hashes at once, while the bytes are in its buffer; one goroutine (run) hashes
// the rest, which came before its turn, and decides the outcome. run waits for all
// connections.
type fill struct {
	store  *Store
	digest digest.Digest
	hint   int64 // the size by a manifest, or 0
	fetch  Fetch
	log    *slog.Logger
	began  time.Time

	span   trace.Span
	ctx    context.Context // of the connections
	cancel context.CancelCauseFunc
	conns  sync.WaitGroup

	ready chan struct{} // closed when the size is known, or the fill failed
	done  chan struct{} // closed when the outcome is final and on disk

	hash     hash.Hash     // belongs to the one who has set hashing; to all once done is closed
	hashable chan struct{} // tells run to look at the front; capacity 1

	mu        sync.Mutex // guards what follows; no I/O under it
	front     int64      // bytes hashed
	hashing   bool       // somebody hashes what follows the front
	published bool       // ready is closed
	size      int64      // -1 until ready
	part      *partial   // nil until ready, and where there was no disk for it
	users     int        // who may still read part.data: run, the one it begins for, and each reader
	segs      segments
	working   int       // connections that have not given up
	quiet     time.Time // until when no more are added
	ranges    bool      // the source honours them: more connections are of use
	verified  bool      // the digest matched: the last byte may go out
	err       error
	trouble   error // for which a connection was replaced last
	waiters   []*waiter
}

// waiter is a client who waits for the byte at off.
type waiter struct {
	off  int64
	wake chan struct{} // capacity 1
}

// diskError is a failure of this side: the blob can still be had from upstream.
type diskError struct{ error }

func (e diskError) Unwrap() error { return e.error }

var (
	errMismatch = errors.New("the content does not match its digest")
	errChanged  = errors.New("the source tells another size than before")
	errEnded    = errors.New("the fill has ended")
)

// chunkSize is how much moves at a time between socket, file and hash: large
// enough that system calls do not count, small enough to stay in the L2 cache.
const chunkSize = 256 << 10

var buffers = sync.Pool{New: func() any {
	buf := make([]byte, chunkSize)
	return &buf
}}

// newFill returns a fill for the request of ctx, whose end does not end it.
func newFill(ctx context.Context, s *Store, dgst digest.Digest, hint int64, fetch Fetch) *fill {
	f := &fill{
		store:  s,
		digest: dgst,
		hint:   hint,
		fetch:  fetch,
		log:    s.log.With("digest", dgst),
		began:  s.opts.Now(),
		ready:  make(chan struct{}),
		done:   make(chan struct{}),
		hash:   dgst.Algorithm().Hash(),
		size:   -1,
		users:  2,

		hashable: make(chan struct{}, 1),
	}
	f.startSpan(ctx)
	return f
}

// run takes the fill from beginning to end.
func (f *fill) run() {
	defer close(f.done)
	defer f.release()
	begun, m := time.Now(), f.store.metrics
	m.waiting.Add(1)
	err := f.store.fills.Acquire(f.ctx, 1)
	m.waiting.Add(-1)
	m.filling(f.digest)
	if err == nil {
		defer f.store.fills.Release(1)
		err = f.bring()
	}
	if err != nil {
		err = f.fail(err)
	}
	f.cancel(errEnded)
	f.conns.Wait()
	if err == nil {
		err = f.store.commit(f)
	} else {
		f.store.abandon(f, err)
	}
	f.store.forget(f)
	m.filled(time.Since(begun), err)
	f.endSpan(err)
}

func (f *fill) bring() error {
	if err := f.store.awaitTurn(f.ctx, f.digest); err != nil {
		return err
	}
	if _, err := f.store.Stat(f.digest); err == nil {
		return errEnded // it came here since the store last looked
	}
	f.start()
	return f.verify()
}

// start sets the first connections to work: where an earlier process left off,
// or at offset 0.
func (f *fill) start() {
	if f.store.health.Refuses() != nil { // what is on disk stays there
		f.begins()
		return
	}
	paths := f.store.folder.Partial(f.digest)
	charged := f.store.takeUp(f.ctx, f.digest)
	part, notes, err := resumePartial(f.store.folder.Steps, paths.Data, paths.Journal)
	if err != nil {
		f.store.dropPartial(f.digest, charged)
		f.begins()
		return
	}
	f.store.space.Add(disk.Charge(part.size) - charged) // none, unless the scan did not see it
	f.log.Info("resuming a partial blob", "size", part.size)
	recovery := &connection{fill: f}
	f.begin(part, func() { recovery.reserveLocked(notes) })
	f.join(recovery)
	f.mu.Lock()
	defer f.mu.Unlock()
	if seg := f.claimLocked(); seg != nil {
		f.joinLocked(&connection{fill: f, seg: seg})
	}
}

// takeUp hands a blob to the fill that brings it, and returns how many bytes an
// earlier partial of it is charged. It waits for the scan.
func (s *Store) takeUp(ctx context.Context, d digest.Digest) (charged int64) {
	select {
	case <-s.scanned:
	case <-ctx.Done():
		return 0
	}
	it, _ := s.recency.Get(d)
	if it.Partial {
		s.recency.Remove(d)
		return it.Bytes
	}
	return 0
}

// begins asks the source for the first time. No more is known than the hint.
func (f *fill) begins() {
	first := f.store.opts.Segment
	if 0 < f.hint && f.hint <= 2*first {
		first = f.hint
	}
	f.join(&connection{fill: f, first: first})
}

// begin takes the file for the blob's bytes, and lets its caller claim ground.
// Clients wait for the source's first answer, even where an earlier process left
// bytes: a source that is dead must be an error before it is half a body.
func (f *fill) begin(part *partial, claimLocked func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.part, f.size = part, part.size
	f.segs = newSegments(part.size)
	claimLocked()
}

// publishLocked lets clients have the size, or the failure.
func (f *fill) publishLocked() {
	if !f.published {
		f.published = true
		close(f.ready)
	}
}

// prepare makes the partial for a blob whose size has just become known.
func (f *fill) prepare(size int64, claimLocked func()) error {
	paths := f.store.folder.Partial(f.digest)
	part, err := f.place(paths, size)
	if err != nil && f.ctx.Err() != nil {
		return err
	}
	if err != nil {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.size = size // clients go around the disk, and need the size for it
		return diskError{err}
	}
	f.begin(part, claimLocked)
	return nil
}

// place makes a partial where there is room for it, or room can be made.
func (f *fill) place(paths disk.PartialPaths, size int64) (part *partial, err error) {
	err = f.store.placing(f.ctx, f.digest, disk.Charge(size), func() error {
		part, err = createPartial(f.store.folder.Steps, paths.Data, paths.Journal, size)
		return err
	})
	return part, err
}

// verify hashes what arrives, in order, and compares at the end.
func (f *fill) verify() error {
	<-f.ready
	for {
		off, n, err := f.claimFront()
		if err != nil {
			return err
		}
		if n == 0 {
			break
		}
		if err := f.hashStored(off, n); err != nil {
			return f.fail(diskError{err})
		}
		f.hashed(n)
	}
	if digest.NewDigest(f.digest.Algorithm(), f.hash) != f.digest {
		return f.fail(errMismatch)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.verified = true
	f.wakeLocked(0, f.size)
	return nil
}

// claimFront waits until bytes at the front are on disk that nobody hashes, and
// gives the hash to its caller. It returns no bytes when all are hashed.
func (f *fill) claimFront() (off, n int64, err error) {
	for {
		f.mu.Lock()
		if !f.hashing {
			off, n, err = f.front, min(f.segs.available(f.front), chunkSize), f.err
			f.hashing = n > 0
		}
		idle, over := !f.hashing, f.front == f.size
		f.mu.Unlock()
		switch {
		case n > 0, over:
			return off, n, nil
		case idle && err != nil:
			return 0, 0, err
		}
		<-f.hashable // comes for a failure too, and each end of the fill's context is one
	}
}

// hashStored takes n bytes on disk into the hash. The buffer is held no longer
// than that: most fills wait most of the time.
func (f *fill) hashStored(off, n int64) error {
	buf := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	chunk := (*buf)[:n]
	if _, err := f.part.data.ReadAt(chunk, off); err != nil {
		return err
	}
	f.hash.Write(chunk)
	return nil
}

// hashed gives the hash back, n bytes further.
func (f *fill) hashed(n int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.front += n
	f.hashing = false
	f.recruitLocked()
	f.nudgeLocked()
}

// nudgeLocked has run look at the front, where there is something for it.
func (f *fill) nudgeLocked() {
	if f.hashing || f.err == nil && f.front != f.size && f.segs.available(f.front) == 0 {
		return
	}
	select {
	case f.hashable <- struct{}{}:
	default:
	}
}

// await blocks until w may have the byte at off, and returns how many bytes
// from there on it may have. After a failure it hands out what there is, then
// the error; after a mismatch nothing more.
func (f *fill) await(ctx context.Context, w *waiter, off int64) (int64, error) {
	for {
		f.mu.Lock()
		n, err := f.readableLocked(off), f.err
		if n == 0 && err == nil {
			w.off = off
			f.waiters = append(f.waiters, w)
			f.recruitLocked()
		}
		f.mu.Unlock()
		switch {
		case errors.Is(err, errMismatch):
			return 0, err
		case n > 0:
			return n, nil
		case err != nil:
			return 0, err
		}
		select {
		case <-w.wake:
		case <-ctx.Done():
			f.leave(w)
			return 0, context.Cause(ctx)
		}
	}
}

// readableLocked keeps the blob's last byte from clients until it is verified.
func (f *fill) readableLocked(off int64) int64 {
	n := f.segs.available(off)
	if !f.verified && off+n == f.size && n > 0 {
		n--
	}
	return n
}

// leave takes back a wait.
func (f *fill) leave(w *waiter) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if i := slices.Index(f.waiters, w); i >= 0 {
		f.waiters = slices.Delete(f.waiters, i, i+1)
	}
	select {
	case <-w.wake:
	default:
	}
}

// wakeLocked wakes who waits for a byte in [from,to).
func (f *fill) wakeLocked(from, to int64) {
	f.waiters = slices.DeleteFunc(f.waiters, func(w *waiter) bool {
		if w.off < from || w.off >= to {
			return false
		}
		w.wake <- struct{}{}
		return true
	})
}

// fail ends the fill with its first error, which it returns.
func (f *fill) fail(err error) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.failLocked(err)
	return f.err
}

func (f *fill) failLocked(err error) {
	if f.err != nil || f.verified {
		return
	}
	f.err = err
	f.publishLocked()
	f.cancel(err)
	f.wakeLocked(0, max(f.size, 1))
	f.nudgeLocked()
}

// acquire gives a reader the right to use the file; the one for whom the fill began
// has it already. It fails where the fill has none, or has failed.
func (f *fill) acquire(own bool) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil || f.part == nil || f.users == 0 {
		return false
	}
	if !own {
		f.users++
	}
	return true
}

// release gives the file up; the last one closes it.
func (f *fill) release() {
	f.mu.Lock()
	f.users--
	last := f.users == 0 && f.part != nil
	f.mu.Unlock()
	if last {
		_ = f.part.data.Close() // nothing was left to write
	}
}
