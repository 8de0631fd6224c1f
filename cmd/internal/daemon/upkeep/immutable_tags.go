package upkeep

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2/simplelru"
	"golang.org/x/time/rate"

	"github.com/larder-registry/larder/cache"
	"github.com/larder-registry/larder/config"
	"github.com/larder-registry/larder/upstream"
	"github.com/larder-registry/larder/upstream/ecr"
)

// ImmutableTags knows which tags ECR does not let move, so that they need no
// revalidation. A repository that Since is asked about and that is not known is
// read in the background, in few calls; until then its tags count as mutable. It is safe
// for concurrent use.
type ImmutableTags struct {
	registries registries
	log        *slog.Logger
	now        func() time.Time
	pause      time.Duration // before a repository is read, at most

	queue chan cache.Repository // to be read; a repository that does not fit is asked about again

	// Run's own:
	denials  *denials
	budget   *rate.Limiter        // of calls
	allowed  map[string]bool      // hosts at which a repository was read
	deniedTo map[string]time.Time // until when other hosts are not asked, after a denial

	mu    sync.Mutex // guards what follows
	known *lru.LRU[cache.Repository, *mutability]
}

// mutability is what is known of one repository.
type mutability struct {
	rules ecr.TagMutability
	since time.Time // when these rules were read first, of all readings in a row that agree
	until time.Time // for how long the rules hold
	next  time.Time // when to read them again, if someone asks
	asked bool      // whether someone has asked since the last reading
	alone bool      // a refusal was about this repository, and would be about others read with it
}

const (
	// ImmutableTTL is how long an immutable tag is served without asking. ECR lets
	// it be deleted and pushed again.
	ImmutableTTL = time.Hour
	// mutabilityTTL is how long a setting holds after it was read: ECR lets it be
	// changed, too. It is read again in the last third of that time.
	mutabilityTTL = time.Hour
	// mutabilityDenied is how long a repository whose setting may not be read is not
	// asked about again, and mutabilityFailed the same after another failure.
	mutabilityDenied = time.Hour
	mutabilityFailed = 5 * time.Minute
	// firstMutabilityCalls is how many calls may be made at once, and mutabilityCallsPerHour
	// how many more in an hour: 2.2 a second for a thousand nodes. A call reads a hundred
	// repositories, so that this is enough for five hundred.
	firstMutabilityCalls   = 10
	mutabilityCallsPerHour = 8
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
		budget:   rate.NewLimiter(rate.Every(time.Hour/mutabilityCallsPerHour), firstMutabilityCalls),
		allowed:  make(map[string]bool),
		deniedTo: make(map[string]time.Time),
		known:    known,
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
	m.asked = true
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

// read reads the setting of a repository, and with it those of others there.
func (t *ImmutableTags) read(ctx context.Context, repo cache.Repository) {
	registry, entry, ok := t.registries.ecr(repo)
	switch {
	case !ok || !entry.HeedsImmutableTags() || t.now().Before(t.deniedTo[repo.Upstream]):
		t.update(repo, func(m *mutability, now time.Time) { *m = mutability{next: now.Add(mutabilityDenied)} })
		return
	case t.registries.postponed(repo), !t.isAsked(repo):
		return // it is asked about again, or was read with another
	}
	if !sleep(ctx, time.Duration(rand.Float64()*float64(t.pause))) {
		return
	}
	t.readAll(ctx, registry.ECR(), t.with(repo))
}

// isAsked reports whether someone has asked about a repository since its last reading.
func (t *ImmutableTags) isAsked(repo cache.Repository) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	m, ok := t.known.Peek(repo)
	return ok && m.asked
}

// with returns a repository and those to read with it: others of its registry that are in
// use, those first whose setting holds least.
func (t *ImmutableTags) with(repo cache.Repository) []cache.Repository {
	t.mu.Lock()
	defer t.mu.Unlock()
	group := []cache.Repository{repo}
	if m, ok := t.known.Peek(repo); !ok || m.alone || !t.allowed[repo.Upstream] {
		return group
	}
	var others []cache.Repository
	until := make(map[cache.Repository]time.Time)
	for _, other := range t.known.Keys() {
		m, _ := t.known.Peek(other)
		if _, ok := t.registries.entry(other); !ok || other == repo || other.Upstream != repo.Upstream || !m.asked || m.alone {
			continue
		}
		others = append(others, other)
		until[other] = m.until
	}
	slices.SortStableFunc(others, func(a, b cache.Repository) int { return until[a].Compare(until[b]) })
	return append(group, others[:min(len(others), ecr.MaxRepositories-1)]...)
}

// readAll reads the settings of repositories of one registry, if a call is allowed. ECR
// refuses all of them for one that may not be read, or that does not exist: then it reads
// each half by itself.
func (t *ImmutableTags) readAll(ctx context.Context, registry *ecr.Registry, group []cache.Repository) {
	if !t.budget.AllowN(t.now(), 1) {
		return // they are asked about again
	}
	host := group[0].Upstream
	names := make([]string, len(group))
	for i, repo := range group {
		names[i] = repo.Name
	}
	rules, err := registry.TagMutabilities(ctx, names)
	refused := errors.Is(err, fs.ErrPermission) || errors.Is(err, fs.ErrNotExist)
	switch {
	case err == nil:
		t.allowed[host] = true
		for _, repo := range group {
			t.update(repo, func(m *mutability, now time.Time) { m.renew(rules[repo.Name], now) })
		}
	case refused && len(group) > 1:
		t.readAll(ctx, registry, group[:len(group)/2])
		t.readAll(ctx, registry, group[len(group)/2:])
	case refused:
		t.update(group[0], func(m *mutability, now time.Time) { *m = mutability{next: now.Add(mutabilityDenied), alone: true} })
		if errors.Is(err, fs.ErrPermission) {
			t.denials.say(host, err)
			if !t.allowed[host] {
				t.deniedTo[host] = t.now().Add(mutabilityDenied)
			}
		}
	case ctx.Err() == nil: // the last reading holds for its time
		t.log.Debug("which tags are immutable could not be read", "upstream", host, "repositories", len(group), "error", err)
		for _, repo := range group {
			t.update(repo, func(m *mutability, now time.Time) { m.next = now.Add(mutabilityFailed) })
		}
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
	m.next = now.Add(mutabilityTTL*2/3 + time.Duration(rand.Int64N(int64(mutabilityTTL/12))))
	m.asked, m.alone = false, false
}
