package upkeep

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/larder-registry/larder/cache"
	"github.com/larder-registry/larder/upstream/pace"
)

const (
	// proofsFirst is how long after start-up the cache is searched for what is not proven, and
	// proofsEvery how long after that each further time.
	proofsFirst = 10 * time.Second
	proofsEvery = time.Hour
	// proofPause is between two questions to an upstream: an image of twenty layers takes a few
	// seconds.
	proofPause = 100 * time.Millisecond
	// proofRetry is the pause after a question without an answer. It doubles up to
	// maxProofRetry, so that little time is lost when the link is back for minutes only.
	proofRetry    = 5 * time.Second
	maxProofRetry = 2 * time.Minute
	// maxProofs bounds the questions that are on their way at the same time, one for each
	// upstream; maxProofQueues and maxProofQueue bound what waits. What they leave out is found
	// by the next search.
	maxProofs      = 4
	maxProofQueues = 64
	maxProofQueue  = 4096
)

// Proofs asks upstreams whether repositories have what their manifests name and the cache has
// from elsewhere. Without an answer the cache does not serve it there.
type Proofs struct {
	store  *cache.Store
	prove  func(context.Context, cache.Unproven) error
	log    *slog.Logger
	asking *semaphore.Weighted

	mu     sync.Mutex // guards what follows
	queues map[string]*proofQueue
	again  chan struct{} // closed, and replaced, when upstreams that did not answer are asked again
}

// proofQueue is what waits for one upstream. A goroutine works on it until it is empty.
type proofQueue struct {
	waiting []cache.Unproven
	known   map[cache.Unproven]bool
}

// NewProofs returns the upkeep of a store's proofs, with a function that asks an upstream. It
// does nothing until Run is called.
func NewProofs(store *cache.Store, prove func(context.Context, cache.Unproven) error, log *slog.Logger) *Proofs {
	return &Proofs{store: store, prove: prove, log: log, asking: semaphore.NewWeighted(maxProofs), queues: make(map[string]*proofQueue), again: make(chan struct{})}
}

// TryAgain has Run ask at once what an upstream did not answer, as another upstream may be asked now.
func (p *Proofs) TryAgain() {
	p.mu.Lock()
	defer p.mu.Unlock()
	close(p.again)
	p.again = make(chan struct{})
}

// triedAgain returns a channel that is closed by the next TryAgain.
func (p *Proofs) triedAgain() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.again
}

// Run asks for what a manifest has named at once, and for what else is not proven once an
// hour, until ctx ends.
func (p *Proofs) Run(ctx context.Context) {
	ctx = cache.Unattended(ctx)
	var work sync.WaitGroup
	defer work.Wait()
	add := func(u cache.Unproven) bool {
		if p.add(u) {
			work.Go(func() { p.work(ctx, u.Upstream) })
		}
		return ctx.Err() == nil
	}
	search := time.NewTimer(pace.Jittered(proofsFirst))
	defer search.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case u := <-p.store.Unproven():
			add(u)
		case <-search.C:
			if err := p.store.EachUnproven(add); err != nil && ctx.Err() == nil {
				p.log.Warn("the cache was not searched for what upstreams should confirm", "error", err)
			}
			search.Reset(pace.Jittered(proofsEvery))
		}
	}
}

// add puts one into the queue of its upstream, unless it is there or the queue is full. It
// reports whether the queue is new.
func (p *Proofs) add(u cache.Unproven) (isNew bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	q := p.queues[u.Upstream]
	if q == nil && len(p.queues) < maxProofQueues {
		q = &proofQueue{known: make(map[cache.Unproven]bool)}
		p.queues[u.Upstream], isNew = q, true
	}
	if q != nil && len(q.waiting) < maxProofQueue && !q.known[u] {
		q.known[u] = true
		q.waiting = append(q.waiting, u)
	}
	return isNew
}

// next returns the first one of a queue, and removes a queue that is empty.
func (p *Proofs) next(upstream string) (u cache.Unproven, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	q := p.queues[upstream]
	if len(q.waiting) == 0 {
		delete(p.queues, upstream)
		return u, false
	}
	u, q.waiting = q.waiting[0], q.waiting[1:]
	delete(q.known, u)
	return u, true
}

// work asks an upstream, one question at a time, until its queue is empty.
func (p *Proofs) work(ctx context.Context, upstream string) {
	pauses := pace.NewJitteredBackoff(proofRetry, maxProofRetry)
	for {
		u, ok := p.next(upstream)
		if !ok {
			return
		}
		if !p.store.IsUnproven(u) {
			continue
		}
		pause, again := proofPause, p.triedAgain() // before the question: its upstream may come online meanwhile
		if err := p.ask(ctx, u); err == nil || cache.IsRefusal(err) {
			pauses.Reset()
			again = nil
			p.log.Debug("asked whether a repository has what is in the cache", "repository", u.Repository, "digest", u.Digest, "error", err)
		} else {
			pause = pauses.NextBackOff()
			p.add(u)
			p.log.Debug("an upstream could not confirm what is in the cache; trying again later", "repository", u.Repository, "digest", u.Digest, "error", err, "in", pause)
		}
		select {
		case <-ctx.Done():
			return
		case <-again:
			pauses.Reset()
		case <-time.After(pause):
		}
	}
}

func (p *Proofs) ask(ctx context.Context, u cache.Unproven) error {
	if err := p.asking.Acquire(ctx, 1); err != nil {
		return err
	}
	defer p.asking.Release(1)
	return p.prove(ctx, u)
}
