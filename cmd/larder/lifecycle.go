package main

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/cache"
	"github.com/larder-registry/larder/config"
	"github.com/larder-registry/larder/upstream"
	rules "github.com/larder-registry/larder/upstream/lifecycle"
)

// lifecycle has the cache evict first what lifecycle rules have expired: those
// of ECR's repositories, and local ones. It belongs to one goroutine. What it
// finds out is in the store, so that it holds after a restart, and while the
// upstreams cannot be asked.
type lifecycle struct {
	cfg    *config.Config
	client *upstream.Client
	store  *cache.Store
	log    *slog.Logger
	pause  time.Duration // between two questions to upstreams

	denied map[string]bool // upstreams of which this was said
}

const (
	// lifecycleFirst is how long after start-up rules are first applied: a node
	// that boots has better things to do.
	lifecycleFirst = 5 * time.Minute
	// lifecycleEvery is how often they are applied after that. ECR itself applies
	// a policy within 24 hours.
	lifecycleEvery = time.Hour
	// lifecyclePause is between two questions, far below what ECR allows for an
	// account.
	lifecyclePause = time.Second
	// maxLifecycleRepositories and maxLifecycleImages bound how many repositories
	// are read at a time, and how many images are asked about. Which ones is a
	// matter of chance, so that all have their turn.
	maxLifecycleRepositories = 1000
	maxLifecycleImages       = 1000
)

// Whose rule a verdict is by.
const (
	sourceECR   = "ecr"
	sourceLocal = "local"
)

func newLifecycle(cfg *config.Config, client *upstream.Client, store *cache.Store, log *slog.Logger) *lifecycle {
	return &lifecycle{
		cfg: cfg, client: client, store: store, log: log,
		pause:  lifecyclePause,
		denied: make(map[string]bool),
	}
}

// run applies the rules again and again until ctx ends.
func (l *lifecycle) run(ctx context.Context) {
	for pause := lifecycleFirst; sleep(ctx, jittered(pause)); pause = lifecycleEvery {
		if err := l.refresh(ctx); err != nil && ctx.Err() == nil {
			l.log.Warn("lifecycle rules were not applied", "error", err)
		}
	}
}

// imageID names an image of one repository.
type imageID struct {
	cache.Repository
	digest.Digest
}

// refresh reads the policies of the cached repositories, hands the store its
// verdicts, and removes what is to be removed.
func (l *lifecycle) refresh(ctx context.Context) error {
	policies, err := l.readPolicies(ctx)
	if err != nil {
		return err
	}
	local, err := l.applyLocal()
	if err != nil {
		return err
	}
	if err := l.store.Doom(union(policies.verdicts, local)); err != nil {
		return err
	}
	return l.enforce(ctx, policies.listed)
}

// policies is what a round of reading ECR's policies came to.
type policies struct {
	verdicts []cache.Verdict
	listed   map[imageID]bool // of what is in the cache, what ECR has
}

// readPolicies applies ECR's policies. A repository that is not read this time
// keeps its verdicts.
func (l *lifecycle) readPolicies(ctx context.Context) (policies, error) {
	p := policies{listed: make(map[imageID]bool)}
	holdings, err := l.store.Holdings()
	if err != nil {
		return p, err
	}
	known, err := l.store.Verdicts()
	if err != nil {
		return p, err
	}
	before := make(map[cache.Repository][]cache.Verdict)
	for _, v := range known {
		if v.Source == sourceECR {
			before[v.Repository] = append(before[v.Repository], v)
		}
	}
	left := maxLifecycleRepositories
	for _, repo := range shuffled(holdings) {
		registry, ok := l.heeded(repo)
		switch {
		case !ok:
			continue
		case left == 0:
			p.verdicts = append(p.verdicts, before[repo]...)
			continue
		}
		left--
		verdicts, err := l.readPolicy(ctx, registry, repo, holdings[repo], before[repo], p.listed)
		switch {
		case errors.Is(err, fs.ErrNotExist): // no policy
		case errors.Is(err, fs.ErrPermission):
			l.sayDenied(repo.Upstream, err)
		case err != nil:
			l.log.Warn("a lifecycle policy could not be read", "repository", repo, "error", err)
			verdicts = before[repo]
		}
		p.verdicts = append(p.verdicts, verdicts...)
		if !sleep(ctx, l.pause) {
			return p, context.Cause(ctx)
		}
	}
	return p, nil
}

// shuffled returns the repositories in an order of chance.
func shuffled(holdings map[cache.Repository][]cache.Holding) []cache.Repository {
	var repos []cache.Repository
	for repo := range holdings {
		repos = append(repos, repo)
	}
	rand.Shuffle(len(repos), func(i, j int) { repos[i], repos[j] = repos[j], repos[i] })
	return repos
}

// heeded returns the upstream of a repository whose policy counts.
func (l *lifecycle) heeded(repo cache.Repository) (*upstream.Registry, bool) {
	entry, ok := l.cfg.Match(repo.Upstream)
	if !ok || !entry.HeedsLifecycle() || !entry.Allows(repo.Name) {
		return nil, false
	}
	registry, err := l.client.Registry(repo.Upstream)
	return registry, err == nil && registry.IsECR()
}

// readPolicy applies one repository's policy to what ECR says that it has, and
// notes what of that is held here. ECR does not say what an index lists; the
// cache knows it of those that it has. What had expired before and is not at ECR
// any more is gone because of that, and stays expired.
func (l *lifecycle) readPolicy(ctx context.Context, registry *upstream.Registry, repo cache.Repository,
	held []cache.Holding, before []cache.Verdict, listed map[imageID]bool) ([]cache.Verdict, error) {
	policy, images, err := registry.Lifecycle(ctx, repo.Name)
	if err != nil {
		return nil, err
	}
	children := make(map[digest.Digest][]digest.Digest)
	for _, h := range held {
		children[h.Digest] = h.Children
	}
	for i := range images {
		parts, here := children[images[i].Digest]
		images[i].Children = parts
		if here {
			listed[imageID{repo, images[i].Digest}] = true
		}
	}
	verdicts := verdictsOf(policy, images, repo, sourceECR)
	for _, v := range before {
		if !listed[imageID{repo, v.Digest}] {
			verdicts = append(verdicts, v)
		}
	}
	return verdicts, nil
}

func verdictsOf(policy rules.Policy, images []rules.Image, repo cache.Repository, source string) []cache.Verdict {
	var verdicts []cache.Verdict
	for _, e := range policy.Expired(images, time.Now()) {
		verdicts = append(verdicts, cache.Verdict{
			Repository: repo, Digest: e.Digest, Expiry: cache.Expiry{Since: e.Since, Rule: e.Rule, Source: source},
		})
	}
	return verdicts
}

// union has an image expire by whichever verdict is the older.
func union(a, b []cache.Verdict) []cache.Verdict {
	var all []cache.Verdict
	place := make(map[imageID]int)
	for _, verdicts := range [][]cache.Verdict{a, b} {
		for _, v := range verdicts {
			id := imageID{v.Repository, v.Digest}
			i, again := place[id]
			switch {
			case !again:
				place[id] = len(all)
				all = append(all, v)
			case v.Since.Before(all[i].Since):
				all[i] = v
			}
		}
	}
	return all
}

// sayDenied logs once for an upstream that its policies cannot be read.
func (l *lifecycle) sayDenied(host string, err error) {
	if !l.denied[host] {
		l.denied[host] = true
		l.log.Info("lifecycle policies are not read: eviction goes by last use alone; to change that allow "+
			"ecr:GetLifecyclePolicy and ecr:DescribeImages, and to silence this set ecr.lifecycle to off",
			"upstream", host, "error", err)
	}
}

// jittered keeps nodes that started together from asking together.
func jittered(d time.Duration) time.Duration {
	return d + time.Duration(rand.Int64N(int64(d)/5))
}

// sleep waits, and reports false when ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
