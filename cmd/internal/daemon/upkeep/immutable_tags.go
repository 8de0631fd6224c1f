package upkeep

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
	"github.com/larder-registry/larder/upstream/ecr"
)

// ImmutableTags knows which tags ECR does not let move, so that they need no
// revalidation. A repository that Since is asked about and that is not known is
// read in the background, one repository at a time; until then its tags count as
// mutable. It is safe for concurrent use.
type ImmutableTags struct {
	registries registries
	log        *slog.Logger
	now        func() time.Time
	pause      time.Duration // before a repository is read, at most

	queue   chan cache.Repository // to be read; a repository that does not fit is asked about again
	denials *denials              // Run's own

	mu    sync.Mutex // guards what follows
	known *lru.LRU[cache.Repository, *mutability]
}

// mutability is what is known of one repository.
type mutability struct {
	rules ecr.TagMutability
	since time.Time // when these rules were read first, of all readings in a row that agree
	until time.Time // for how long the rules hold
	next  time.Time // when to read them again, if someone asks
}

const (
	// ImmutableTTL is how long an immutable tag is served without asking. ECR lets
	// it be deleted and pushed again.
	ImmutableTTL = time.Hour
	// mutabilityTTL is how long a setting holds after it was read: ECR lets it be
	// changed, too. It is read again in the second half of that time.
	mutabilityTTL = time.Hour
	// mutabilityDenied is how long a repository whose setting may not be read is not
	// asked about again, and mutabilityFailed the same after another failure.
	mutabilityDenied = time.Hour
	mutabilityFailed = 5 * time.Minute
	// mutabilityPause keeps nodes that are asked for the same image together from
	// asking ECR together: it publishes no quota for DescribeRepositories.
	mutabilityPause = 10 * time.Second
	// maxMutabilities bounds the repositories that are known, some 200 bytes each,
	// and maxMutabilityQueue those that wait to be read.
	maxMutabilities    = 4096
	maxMutabilityQueue = 256
)

// NewImmutableTags returns an ImmutableTags that knows nothing before Run.
func NewImmutableTags(cfg *config.Config, client *upstream.Client, log *slog.Logger) *ImmutableTags {
	known, _ := lru.NewLRU[cache.Repository, *mutability](maxMutabilities, nil) // fails only for a size that is not positive
	return &ImmutableTags{
		registries: registries{cfg, client},
		log:        log,
		now:        time.Now,
		pause:      mutabilityPause,
		queue:      make(chan cache.Repository, maxMutabilityQueue),
		denials: newDenials(log, "immutable tags are confirmed as often as others: to change that allow ecr:DescribeRepositories, "+
			"and to silence this set ecr.immutable_tags to false"),
		known: known,
	}
}

// Since reports whether a tag is immutable, and since when it is known to be. It
// does not block. It is a cache.Freshness.Immutable.
func (t *ImmutableTags) Since(repo cache.Repository, tag string) (time.Time, bool) {
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
			m.next = now.Add(mutabilityFailed) // in case the reading comes to nothing
		default:
		}
	}
	return m.since, now.Before(m.until) && m.rules.Immutable(tag)
}

// Run reads the repositories that Since was asked about until ctx ends.
func (t *ImmutableTags) Run(ctx context.Context) {
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
func (t *ImmutableTags) read(ctx context.Context, repo cache.Repository) {
	registry, entry, ok := t.registries.ecr(repo)
	if !ok || !entry.HeedsImmutableTags() {
		t.update(repo, func(m *mutability, now time.Time) { *m = mutability{next: now.Add(mutabilityDenied)} })
		return
	}
	if !sleep(ctx, time.Duration(rand.Float64()*float64(t.pause))) {
		return
	}
	rules, err := registry.ECR().TagMutability(ctx, repo.Name)
	switch {
	case err == nil:
		t.update(repo, func(m *mutability, now time.Time) { m.renew(rules, now) })
	case errors.Is(err, fs.ErrPermission):
		t.update(repo, func(m *mutability, now time.Time) { *m = mutability{next: now.Add(mutabilityDenied)} })
		t.denials.say(repo.Upstream, err)
	case ctx.Err() == nil: // the last reading holds for its time
		t.log.Debug("which tags are immutable could not be read", "repository", repo, "error", err)
		t.update(repo, func(m *mutability, now time.Time) { m.next = now.Add(mutabilityFailed) })
	}
}

// update changes what is known of a repository, unless it was forgotten meanwhile.
func (t *ImmutableTags) update(repo cache.Repository, change func(m *mutability, now time.Time)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if m, ok := t.known.Peek(repo); ok {
		change(m, t.now())
	}
}

// renew sets rules that were read just now. If the last reading is no longer
// valid, the setting may have changed in between, even if both readings agree.
func (m *mutability) renew(rules ecr.TagMutability, now time.Time) {
	if !now.Before(m.until) || !rules.Equal(m.rules) {
		m.since = now
	}
	m.rules = rules
	m.until = now.Add(mutabilityTTL)
	m.next = now.Add(mutabilityTTL/2 + time.Duration(rand.Int64N(int64(mutabilityTTL/4))))
}
