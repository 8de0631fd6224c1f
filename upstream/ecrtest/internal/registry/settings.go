package registry

import (
	"slices"

	"github.com/larder-registry/larder/upstream/ecrtest/internal/iam"
)

// SetPullTimeExclusions replaces the list of principals, by their ARNs, whose pulls are
// not recorded.
func (g *Registry) SetPullTimeExclusions(principals []string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.exclusions = slices.Clone(principals)
}

// PullTimeExclusions returns that list, sorted.
func (g *Registry) PullTimeExclusions() []string {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return slices.Sorted(slices.Values(g.exclusions))
}

// Records reports whether the pulls of a principal are recorded.
func (g *Registry) Records(p iam.Principal) bool {
	return !slices.ContainsFunc(g.PullTimeExclusions(), p.Is)
}

// ReplicationRule says to which registries repositories are replicated.
type ReplicationRule struct {
	Destinations []Destination
	// Prefixes are of the names of the repositories; none means all.
	Prefixes []string
}

// Destination is a registry that repositories are replicated to.
type Destination struct{ Account, Region string }

// SetReplication replaces the replication rules. They replicate nothing by themselves.
func (g *Registry) SetReplication(rules []ReplicationRule) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.replication = slices.Clone(rules)
}

// Replication returns the replication rules.
func (g *Registry) Replication() []ReplicationRule {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return slices.Clone(g.replication)
}
