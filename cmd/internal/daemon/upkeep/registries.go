package upkeep

import (
	"log/slog"

	"github.com/larder-registry/larder/cache"
	"github.com/larder-registry/larder/config"
	"github.com/larder-registry/larder/upstream"
)

// registries finds the registries of repositories in the cache, of which the
// configuration may allow fewer than before.
type registries struct {
	cfg    *config.Config
	client *upstream.Client
}

// entry returns the configuration's entry for a repository, and false if the
// configuration does not allow the repository.
func (r registries) entry(repo cache.Repository) (config.Upstream, bool) {
	entry, ok := r.cfg.Match(repo.Upstream)
	return entry, ok && entry.Allows(repo.Name)
}

// postponed reports whether the upstream of a repository must not be asked now.
func (r registries) postponed(repo cache.Repository) bool {
	return r.client.Postponed(repo.Upstream) != nil
}

// ecr returns the registry of a repository at ECR with its entry of the
// configuration. It returns false for other registries, and if the configuration
// does not allow the repository.
func (r registries) ecr(repo cache.Repository) (*upstream.Registry, config.Upstream, bool) {
	entry, ok := r.entry(repo)
	if !ok {
		return nil, config.Upstream{}, false
	}
	registry, err := r.client.Registry(repo.Upstream)
	if err != nil || registry.ECR() == nil {
		return nil, config.Upstream{}, false
	}
	return registry, entry, true
}

// denials logs once for each upstream that it denies something. It belongs to one
// goroutine.
type denials struct {
	log  *slog.Logger
	text string // what follows from a denial, and what changes that
	said map[string]bool
}

func newDenials(log *slog.Logger, text string) *denials {
	return &denials{log: log, text: text, said: make(map[string]bool)}
}

// say logs the first denial of an upstream.
func (d *denials) say(host string, err error) {
	if !d.said[host] {
		d.said[host] = true
		d.log.Info(d.text, "upstream", host, "error", err)
	}
}
