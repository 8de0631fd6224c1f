package upkeep

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/cache"
	"github.com/larder-registry/larder/upstream/lifecycle"
	"github.com/larder-registry/larder/upstream/reply"
)

// ecrPolicies evaluates the lifecycle policies of ECR's repositories. It belongs to
// one goroutine.
type ecrPolicies struct {
	registries registries
	store      *cache.Store
	log        *slog.Logger
	now        func() time.Time
	denials    *denials
	unclear    map[cache.Repository]string // what was last said not to be understood
	throttled  bool                        // whether the last round ended for that, which was said
	readings   *readings
	indexes    *indexes
	pause      time.Duration // for each call
}

// expired returns the images in the cache that have expired. A repository that is
// not read this time keeps the result of the last time.
func (p *ecrPolicies) expired(ctx context.Context) ([]cache.Verdict, error) {
	holdings, err := p.store.Holdings()
	if err != nil {
		return nil, err
	}
	results, err := p.before()
	if err != nil {
		return nil, err
	}
	maps.DeleteFunc(p.unclear, func(repo cache.Repository, _ string) bool { return holdings[repo] == nil })
	maps.DeleteFunc(results, func(repo cache.Repository, _ []cache.Verdict) bool { return !p.heeded(repo) })
	if err := p.round(ctx, holdings, results); err != nil {
		return nil, err
	}
	var expired []cache.Verdict
	for _, of := range results {
		expired = append(expired, of...)
	}
	return expired, nil
}

// heeded reports whether the repository is at ECR and its policy counts.
func (p *ecrPolicies) heeded(repo cache.Repository) bool {
	_, entry, ok := p.registries.ecr(repo)
	return ok && entry.HeedsLifecycle()
}

// round reads the repositories that are due, as far as calls are allowed, and puts
// what has expired there into results. It ends where ECR throttles.
func (p *ecrPolicies) round(ctx context.Context, holdings map[cache.Repository][]cache.Holding, results map[cache.Repository][]cache.Verdict) error {
	p.readings.grow(p.now())
	near := evictionIsNear(p.store.Activity())
	again := func(repo cache.Repository) bool {
		entry, ok := p.registries.entry(repo)
		return near || ok && entry.EnforcesLifecycle()
	}
	repos := slices.DeleteFunc(slices.Collect(maps.Keys(holdings)), func(repo cache.Repository) bool { return !p.heeded(repo) })
	for _, repo := range p.readings.due(repos, p.now(), again) {
		if p.readings.balance < 1 {
			return nil
		}
		if p.registries.postponed(repo) {
			continue
		}
		calls, err := p.update(ctx, repo, holdings[repo], results)
		p.readings.spend(calls)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case reply.IsThrottled(err):
			if !p.throttled {
				p.throttled = true
				p.log.Warn("ECR's API gets too many requests: lifecycle policies are read later, and the last results hold", "repository", repo, "error", err)
			}
			return nil
		case err != nil:
			p.log.Warn("a lifecycle policy could not be read", "repository", repo, "error", err)
		default:
			p.throttled = false
		}
		if !sleep(ctx, time.Duration(calls)*p.pause) {
			return context.Cause(ctx)
		}
	}
	return nil
}

// evictionIsNear reports whether the cache may grow by no more than a quarter before
// something is evicted: then it is time to know what has expired.
func evictionIsNear(a cache.Activity) bool {
	growth := a.Free
	if a.MaxSize > 0 {
		growth = min(growth, a.MaxSize-a.Bytes)
	}
	return growth <= a.Bytes/4
}

// update reads one repository, and returns how many calls that took. Without a
// policy, or without the permission to read it, nothing has expired. After another
// error the last result holds.
func (p *ecrPolicies) update(ctx context.Context, repo cache.Repository, holdings []cache.Holding, results map[cache.Repository][]cache.Verdict) (calls int, err error) {
	registry, _, ok := p.registries.ecr(repo)
	if !ok {
		return 0, nil
	}
	now := p.now()
	read, err := registry.ECR().Lifecycle(ctx, repo.Name, p.readings.seen(repo, now))
	switch {
	case errors.Is(err, fs.ErrPermission):
		p.denials.say(repo.Upstream, err)
		fallthrough
	case errors.Is(err, fs.ErrNotExist):
		delete(results, repo)
		p.readings.refused(repo, now)
		return 1, nil
	case err != nil:
		p.readings.failed(repo, now)
		return 1, err
	case read.Images == nil:
		p.readings.checked(repo, now)
		return read.Calls(), nil
	}
	p.sayUnclear(repo, read.Policy)
	listed, err := p.addHoldings(repo, read.Images, holdings)
	if err != nil {
		return read.Calls(), err
	}
	if !read.Policy.CountsPulls() {
		cached := func(d digest.Digest) bool { return listed[d] }
		if err := p.indexes.complete(ctx, registry, repo, read.Policy, read.Images, cached); err != nil {
			return read.Calls(), err
		}
	}
	expired := expiredBy(read.Policy, read.Images, repo, SourceECR)
	for _, v := range results[repo] {
		if !listed[v.Digest] { // it had expired before, and ECR does not list it any more
			expired = append(expired, v)
		}
	}
	results[repo] = expired
	p.readings.described(repo, now, read.Evaluated, listed)
	return read.Calls(), nil
}

// addHoldings sets the children of the indexes that are in the cache, and returns
// which of the images are. It records the pulls that ECR has seen, by any node, so
// that KeepAlive does not tell ECR again.
func (p *ecrPolicies) addHoldings(repo cache.Repository, images []lifecycle.Image, holdings []cache.Holding) (listed map[digest.Digest]bool, err error) {
	of := make(map[digest.Digest]cache.Holding, len(holdings))
	for _, h := range holdings {
		of[h.Digest] = h
	}
	listed = make(map[digest.Digest]bool)
	for i := range images {
		img := &images[i]
		h, cached := of[img.Digest]
		if !cached {
			continue
		}
		img.Children, listed[img.Digest] = h.Children, true
		if img.Pulled.After(h.Touched) && !img.Pulled.After(p.now()) {
			if err := p.store.Touched(repo, img.Digest, img.Pulled); err != nil {
				return nil, err
			}
		}
	}
	return listed, nil
}

// before returns what had expired by ECR's policies the last time.
func (p *ecrPolicies) before() (map[cache.Repository][]cache.Verdict, error) {
	known, err := p.store.Verdicts()
	if err != nil {
		return nil, err
	}
	before := make(map[cache.Repository][]cache.Verdict)
	for _, v := range known {
		if v.Source == SourceECR {
			before[v.Repository] = append(before[v.Repository], v)
		}
	}
	return before, nil
}

// sayUnclear logs what is not understood of a policy, once until that changes.
func (p *ecrPolicies) sayUnclear(repo cache.Repository, policy lifecycle.Policy) {
	mistakes := policy.NotUnderstood()
	if len(mistakes) == 0 {
		delete(p.unclear, repo)
		return
	}
	if text := mistakes.Error(); p.unclear[repo] != text {
		p.unclear[repo] = text
		p.log.Warn("a part of a lifecycle policy is not understood: its rule expires nothing, and protects the images that it may select",
			"repository", repo, "error", mistakes)
	}
}
