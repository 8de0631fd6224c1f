package upkeep

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"maps"
	"math/rand/v2"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/cache"
	"github.com/larder-registry/larder/upstream"
	"github.com/larder-registry/larder/upstream/lifecycle"
)

// ecrPolicies evaluates the lifecycle policies of ECR's repositories. It belongs to
// one goroutine.
type ecrPolicies struct {
	registries registries
	store      *cache.Store
	log        *slog.Logger
	denials    *denials
	unclear    map[cache.Repository]string // what was last said not to be understood
	indexes    *indexes
	pause      time.Duration // between two repositories
}

// maxRepositories bounds how many repositories are read in one round. They are chosen
// at random, so that each is chosen at some time.
const maxRepositories = 1000

// expired returns the images in the cache that have expired, and which of those in
// the cache ECR still has. A repository that is not read this time keeps the result
// of the last time.
func (p *ecrPolicies) expired(ctx context.Context) (expired []cache.Verdict, listed map[cache.RepoDigest]bool, err error) {
	holdings, err := p.store.Holdings()
	if err != nil {
		return nil, nil, err
	}
	before, err := p.before()
	if err != nil {
		return nil, nil, err
	}
	maps.DeleteFunc(p.unclear, func(repo cache.Repository, _ string) bool { return holdings[repo] == nil })
	listed = make(map[cache.RepoDigest]bool)
	left := maxRepositories
	for _, repo := range shuffled(holdings) {
		registry, entry, ok := p.registries.ecr(repo)
		switch {
		case !ok || !entry.HeedsLifecycle():
			continue
		case left == 0:
			expired = append(expired, before[repo]...)
			continue
		}
		left--
		now, err := p.read(ctx, registry, repo, holdings[repo], before[repo], listed)
		switch {
		case errors.Is(err, fs.ErrNotExist): // no policy
		case errors.Is(err, fs.ErrPermission):
			p.denials.say(repo.Upstream, err)
		case err != nil:
			p.log.Warn("a lifecycle policy could not be read", "repository", repo, "error", err)
			now = before[repo]
		}
		expired = append(expired, now...)
		if !sleep(ctx, p.pause) {
			return nil, nil, context.Cause(ctx)
		}
	}
	return expired, listed, nil
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

// shuffled returns the repositories in random order.
func shuffled(holdings map[cache.Repository][]cache.Holding) []cache.Repository {
	var repos []cache.Repository
	for repo := range holdings {
		repos = append(repos, repo)
	}
	rand.Shuffle(len(repos), func(i, j int) { repos[i], repos[j] = repos[j], repos[i] })
	return repos
}

// read evaluates one repository's policy for the images that ECR lists, and adds
// those that are in the cache to listed. ECR does not tell the children of an
// index. The cache knows them for the indexes that it has. Other indexes are fetched
// if that decides about an image in the cache, unless a rule of the policy counts
// pulls: ECR may count the fetch as one. An image that had expired before and that
// ECR does not list any more stays expired.
func (p *ecrPolicies) read(ctx context.Context, registry *upstream.Registry, repo cache.Repository,
	holdings []cache.Holding, before []cache.Verdict, listed map[cache.RepoDigest]bool) ([]cache.Verdict, error) {
	policy, images, err := registry.ECR().Lifecycle(ctx, repo.Name)
	if err != nil {
		return nil, err
	}
	p.sayUnclear(repo, policy)
	children := make(map[digest.Digest][]digest.Digest)
	for _, h := range holdings {
		children[h.Digest] = h.Children
	}
	for i := range images {
		if of, cached := children[images[i].Digest]; cached {
			images[i].Children = of
			listed[cache.RepoDigest{Repository: repo, Digest: images[i].Digest}] = true
		}
	}
	if !policy.CountsPulls() {
		cached := func(d digest.Digest) bool { return listed[cache.RepoDigest{Repository: repo, Digest: d}] }
		if err := p.indexes.complete(ctx, registry, repo, policy, images, cached); err != nil {
			return nil, err
		}
	}
	expired := expiredBy(policy, images, repo, SourceECR)
	for _, v := range before {
		if !listed[cache.RepoDigest{Repository: repo, Digest: v.Digest}] {
			expired = append(expired, v)
		}
	}
	return expired, nil
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
