package upkeep

import (
	"github.com/larder-registry/larder/cache"
	"github.com/larder-registry/larder/config"
	"github.com/larder-registry/larder/upstream/lifecycle"
)

// localRules evaluates the configuration's own lifecycle rules.
type localRules struct {
	cfg   *config.Config
	store *cache.Store
}

// expired returns the images in the cache that have expired. As at ECR, rules are
// evaluated for one repository at a time. What ECR knows of an image is here what
// the cache knows: an image was pushed when it was fetched, and pulled when it was
// last used here.
func (r localRules) expired() ([]cache.Verdict, error) {
	if len(r.cfg.Lifecycle) == 0 {
		return nil, nil
	}
	holdings, err := r.store.Holdings()
	if err != nil {
		return nil, err
	}
	var expired []cache.Verdict
	for repo, held := range holdings {
		if policy, ok := r.cfg.LocalPolicy(repo.Upstream, repo.Name); ok {
			expired = append(expired, expiredBy(policy, imagesOf(held), repo, SourceLocal)...)
		}
	}
	return expired, nil
}

// imagesOf translates what the cache knows of a repository's images.
func imagesOf(holdings []cache.Holding) []lifecycle.Image {
	images := make([]lifecycle.Image, len(holdings))
	for i, h := range holdings {
		images[i] = lifecycle.Image{
			Digest:   h.Digest,
			Tags:     h.Tags,
			Pushed:   h.Fetched,
			Pulled:   h.Used,
			Index:    h.Index,
			Children: h.Children,
			Subject:  h.Subject,
		}
	}
	return images
}
