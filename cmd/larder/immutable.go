package main

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2/simplelru"

	"github.com/larder-registry/larder/cache"
	"github.com/larder-registry/larder/config"
	"github.com/larder-registry/larder/upstream"
)

// immutableTags knows which tags ECR does not let be moved, so that they need
// not be confirmed again. What it is asked about and does not know, it reads in
// the background, one repository at a time; until then a tag counts as movable.
// It is safe for concurrent use.
type immutableTags struct {
	cfg    *config.Config
	client *upstream.Client
	log    *slog.Logger
	now    func() time.Time
	pause  time.Duration // before a reading, at most

	queue  chan cache.Repository // to be read; what does not fit is asked about again
	denied map[string]bool       // upstreams of which this was said; run's own

	mu    sync.Mutex // guards what follows
	known *lru.LRU[cache.Repository, *mutability]
}

// mutability is what is known of one repository.
type mutability struct {
	rules upstream.TagMutability
	since time.Time // when these rules were read first, of all readings in a row that said the same
	until time.Time // for how long they hold
	next  time.Time // when to read them again, if anybody asks
}

const (
	// immutableTTL is for how long an immutable tag is not asked about. ECR lets it
	// be deleted, and then be pushed again.
	immutableTTL = time.Hour
	// mutabilityTTL is for how long a setting holds once it was read: ECR lets it
	// be changed, too. It is read again in the second half of that.
	mutabilityTTL = time.Hour
	// mutabilityDenied is how long a repository is left alone whose setting may not
	// be read, and mutabilityFailed one of which that is not known.
	mutabilityDenied = time.Hour
	mutabilityFailed = 5 * time.Minute
	// mutabilityPause keeps nodes that are asked for the same image together from
	// asking ECR together: it publishes no quota for DescribeRepositories.
	mutabilityPause = 10 * time.Second
	// maxMutabilities bounds the repositories that are known, some 200 bytes each,
	// and maxMutabilityQueue those that wait.
	maxMutabilities    = 4096
	maxMutabilityQueue = 256
)

func newImmutableTags(cfg *config.Config, client *upstream.Client, log *slog.Logger) *immutableTags {
	known, _ := lru.NewLRU[cache.Repository, *mutability](maxMutabilities, nil) // fails only for a size that is not positive
	return &immutableTags{
		cfg: cfg, client: client, log: log, now: time.Now,
		pause:  mutabilityPause,
		queue:  make(chan cache.Repository, maxMutabilityQueue),
		denied: make(map[string]bool),
		known:  known,
	}
}

// since is cache.Freshness.Immutable.
func (t *immutableTags) since(repo cache.Repository, tag string) (time.Time, bool) {
	now := t.now()
	t.mu.Lock()
	defer t.mu.Unlock()
	m, ok := t.known.Get(repo)
	if !ok {
		m = new(mutability)
		t.known.Add(repo, m)
	}
	if !now.Before(m.next) {
		select {
		case t.queue <- repo:
			m.next = now.Add(mutabilityFailed) // should nothing come of it
		default:
		}
	}
	return m.since, now.Before(m.until) && m.rules.Immutable(tag)
}

// run reads what since was asked about until ctx ends.
func (t *immutableTags) run(ctx context.Context) {
	for {
		select {
		case repo := <-t.queue:
			t.read(ctx, repo)
		case <-ctx.Done():
			return
		}
	}
}

// read reads the setting of one repository.
func (t *immutableTags) read(ctx context.Context, repo cache.Repository) {
	registry, ok := t.heeded(repo)
	if !ok {
		t.note(repo, func(m *mutability, now time.Time) { *m = mutability{next: now.Add(mutabilityDenied)} })
		return
	}
	if !sleep(ctx, time.Duration(rand.Float64()*float64(t.pause))) {
		return
	}
	rules, err := registry.TagMutability(ctx, repo.Name)
	switch {
	case err == nil:
		t.note(repo, func(m *mutability, now time.Time) { m.renew(rules, now) })
	case errors.Is(err, fs.ErrPermission):
		t.note(repo, func(m *mutability, now time.Time) { *m = mutability{next: now.Add(mutabilityDenied)} })
		t.sayDenied(repo.Upstream, err)
	case ctx.Err() == nil: // what is known holds for its time
		t.log.Debug("which tags are immutable could not be read", "repository", repo, "error", err)
		t.note(repo, func(m *mutability, now time.Time) { m.next = now.Add(mutabilityFailed) })
	}
}

func (t *immutableTags) note(repo cache.Repository, change func(m *mutability, now time.Time)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if m, ok := t.known.Peek(repo); ok {
		change(m, t.now())
	}
}

// renew takes what was read just now. Between two readings that say the same, far
// enough apart, the setting may have been another one.
func (m *mutability) renew(rules upstream.TagMutability, now time.Time) {
	if !now.Before(m.until) || !rules.Equal(m.rules) {
		m.since = now
	}
	m.rules = rules
	m.until = now.Add(mutabilityTTL)
	m.next = now.Add(mutabilityTTL/2 + time.Duration(rand.Int64N(int64(mutabilityTTL/4))))
}

// heeded returns the upstream of a repository whose settings count.
func (t *immutableTags) heeded(repo cache.Repository) (*upstream.Registry, bool) {
	entry, ok := t.cfg.Match(repo.Upstream)
	if !ok || !entry.HeedsImmutableTags() || !entry.Allows(repo.Name) {
		return nil, false
	}
	registry, err := t.client.Registry(repo.Upstream)
	return registry, err == nil && registry.IsECR()
}

// sayDenied logs once for an upstream that its settings cannot be read.
func (t *immutableTags) sayDenied(host string, err error) {
	if t.denied[host] {
		return
	}
	t.denied[host] = true
	t.log.Info("immutable tags are confirmed as often as others: to change that allow ecr:DescribeRepositories, "+
		"and to silence this set ecr.immutable_tags to false", "upstream", host, "error", err)
}
