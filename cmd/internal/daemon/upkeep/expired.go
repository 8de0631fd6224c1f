package upkeep

import (
	"time"

	"github.com/larder-registry/larder/cache"
	"github.com/larder-registry/larder/upstream/lifecycle"
)

// Where a rule is from, in the Source of a cache.Expiry: the policy of a repository
// at ECR, or the configuration.
const (
	SourceECR   = "ecr"
	SourceLocal = "local"
)

// expiredBy evaluates a policy for the images of a repository.
func expiredBy(policy lifecycle.Policy, images []lifecycle.Image, repo cache.Repository, source string) []cache.Verdict {
	var expired []cache.Verdict
	for _, e := range policy.Expired(images, time.Now()) {
		expired = append(expired, cache.Verdict{
			Repository: repo, Digest: e.Digest, Expiry: cache.Expiry{Since: e.Since, Rule: e.Rule, Source: source},
		})
	}
	return expired
}

// earliest merges two lists. An image in both has expired at the earlier time.
func earliest(a, b []cache.Verdict) []cache.Verdict {
	var all []cache.Verdict
	index := make(map[cache.RepoDigest]int) // in all
	for _, expired := range [][]cache.Verdict{a, b} {
		for _, v := range expired {
			id := cache.RepoDigest{Repository: v.Repository, Digest: v.Digest}
			i, again := index[id]
			switch {
			case !again:
				index[id] = len(all)
				all = append(all, v)
			case v.Since.Before(all[i].Since):
				all[i] = v
			}
		}
	}
	return all
}
