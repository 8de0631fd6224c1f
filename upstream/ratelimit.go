package upstream

import (
	"github.com/larder-registry/larder/upstream/pace"
)

// RateLimit returns what the upstream said last of its limit on pulls, if it ever
// did.
func (r *Registry) RateLimit() (pace.RateLimit, bool) {
	limit := r.limit.Load()
	if limit == nil {
		return pace.RateLimit{}, false
	}
	return *limit, true
}

// scarcest returns, by the names that metrics have for upstreams, what was said
// last by the one that has the fewest pulls left, as a pattern is one name for
// many hosts.
func (c *Client) scarcest() map[string]pace.RateLimit {
	c.mu.Lock()
	registries := c.registries.Values()
	c.mu.Unlock()
	limits := make(map[string]pace.RateLimit)
	for _, r := range registries {
		limit, ok := r.RateLimit()
		if !ok {
			continue
		}
		name := r.calls.upstream.Value.AsString()
		if other, known := limits[name]; !known || limit.Remaining < other.Remaining {
			limits[name] = limit
		}
	}
	return limits
}
