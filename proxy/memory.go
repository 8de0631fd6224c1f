package proxy

import (
	"context"
	"fmt"
	"sync"

	"golang.org/x/sync/semaphore"
)

// Documents are manifests and lists, which are read into memory. Nearly all have a few
// KiB. The bounds are for large ones, so that many of them at once do not take the memory
// of the whole process.
const (
	// smallDocument is the size, in bytes, up to which a document is not counted.
	smallDocument = 64 << 10
	// maxManifests bounds the manifests that are being read from upstreams and checked, in
	// bytes. One upstream gets half of it at most, which is three of the largest: while it is
	// slow, the other half is left for the others.
	maxManifests = 24 << 20
	// maxLists bounds the lists that are being read, or sent to clients, in bytes. One
	// upstream and its clients get half of it at most. Together with the other two it leaves
	// a part of the 128 MiB that the chart gives.
	maxLists = 16 << 20
	// decodingFactor is how many times its own size a manifest takes at most while it is checked
	// and its records are written, and a list of referrers while it is decoded. A manifest of
	// 10,000 layers was measured with nine, and one that is not kept with one.
	decodingFactor = 11
	// copyFactor is how many copies there are of a list of tags.
	copyFactor = 2
	// maxDecoding bounds what decoding takes, in bytes. It is enough for the largest
	// manifest. Decoding waits for no network, so all upstreams share it.
	maxDecoding = 48 << 20
)

// memory bounds the memory that large documents take. It is safe for concurrent use.
type memory struct {
	manifests, lists *pool
	decoding         *semaphore.Weighted
}

func newMemory() memory {
	return memory{newPool(maxManifests), newPool(maxLists), semaphore.NewWeighted(maxDecoding)}
}

// manifest returns the share of a manifest of an upstream, which is empty. The caller
// releases it when the manifest has been kept.
func (m memory) manifest(upstream string) *share {
	return &share{from: m.manifests, decoder: m.decoding, upstream: upstream}
}

// list returns the share of a list of an upstream, which is empty. The caller releases it
// when the list has been sent: so a slow client takes nothing from manifests, or from the
// lists of other upstreams.
func (m memory) list(upstream string) *share {
	return &share{from: m.lists, decoder: m.decoding, upstream: upstream}
}

// pool is memory of which one upstream can take half.
type pool struct {
	all  *semaphore.Weighted
	most int64 // for one upstream

	mu        sync.Mutex                     // guards what follows
	upstreams map[string]*semaphore.Weighted // by their names in metrics, of which there are few
}

func newPool(bytes int64) *pool {
	return &pool{all: semaphore.NewWeighted(bytes), most: bytes / 2, upstreams: make(map[string]*semaphore.Weighted)}
}

func (p *pool) of(upstream string) *semaphore.Weighted {
	p.mu.Lock()
	defer p.mu.Unlock()
	own, ok := p.upstreams[upstream]
	if !ok {
		own = semaphore.NewWeighted(p.most)
		p.upstreams[upstream] = own
	}
	return own
}

// acquire waits for n bytes and returns how many it took. A larger document than one upstream
// may have takes all of that: lists alone can be as large.
func (p *pool) acquire(ctx context.Context, upstream string, n int64) (int64, error) {
	n = min(n, p.most)
	own := p.of(upstream)
	if err := own.Acquire(ctx, n); err != nil {
		return 0, fmt.Errorf("wait for memory, of which other large manifests and lists of %s take all: %w", upstream, err)
	}
	if err := p.all.Acquire(ctx, n); err != nil {
		own.Release(n)
		return 0, fmt.Errorf("wait for memory, of which other large manifests and lists take all: %w", err)
	}
	return n, nil
}

func (p *pool) release(upstream string, n int64) {
	p.all.Release(n)
	p.of(upstream).Release(n)
}

// share is the memory that one document takes. What it is read into is acquired before what
// decoding takes, and nothing is acquired after that: so no two documents wait for each
// other. It is safe for concurrent use.
type share struct {
	from     *pool
	decoder  *semaphore.Weighted
	upstream string

	mu                sync.Mutex // guards what follows
	reading, decoding int64
	ended             bool // nothing may be moved here
}

// read waits until a document of a size may be read. It may be called again, when the
// document is read anew.
func (s *share) read(ctx context.Context, size int64) error {
	s.release() // of an attempt that has failed
	if size <= smallDocument {
		return nil
	}
	n, err := s.from.acquire(ctx, s.upstream, size)
	s.add(&s.reading, n)
	return err
}

// decode waits until a document that was read may be decoded.
func (s *share) decode(ctx context.Context, size int) error {
	return s.work(ctx, size, decodingFactor)
}

// copies waits until a list of tags that was read may be copied.
func (s *share) copies(ctx context.Context, size int) error { return s.work(ctx, size, copyFactor) }

func (s *share) work(ctx context.Context, size int, factor int64) error {
	if size <= smallDocument {
		return nil
	}
	n := min(int64(size)*factor, maxDecoding)
	if err := s.decoder.Acquire(ctx, n); err != nil {
		return fmt.Errorf("wait for memory, of which other large manifests and lists take all: %w", err)
	}
	s.add(&s.decoding, n)
	return nil
}

// hold waits until a document of a size may be read, unless it may be already.
func (s *share) hold(ctx context.Context, size int64) error {
	s.mu.Lock()
	held := s.reading > 0
	s.mu.Unlock()
	if held {
		return nil
	}
	return s.read(ctx, size)
}

// moveTo lets another share, which is to end, have what this one has. A share that has ended
// takes nothing: then it is given back.
func (s *share) moveTo(to *share) {
	s.decoded()
	n := s.take(&s.reading)
	to.mu.Lock()
	ended := to.ended
	if !ended {
		to.reading += n
	}
	to.mu.Unlock()
	if ended {
		s.from.release(s.upstream, n)
	}
}

// end is release for a share to which something may be moved later.
func (s *share) end() {
	s.mu.Lock()
	s.ended = true
	s.mu.Unlock()
	s.release()
}

func (s *share) add(taken *int64, n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	*taken += n
}

// take returns what was taken, and leaves nothing.
func (s *share) take(taken *int64) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := *taken
	*taken = 0
	return n
}

// decoded gives back what decoding took.
func (s *share) decoded() { s.decoder.Release(s.take(&s.decoding)) }

// release gives everything back. It may be called more than once.
func (s *share) release() {
	s.decoded()
	s.from.release(s.upstream, s.take(&s.reading))
}
