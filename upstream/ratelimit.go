package upstream

import (
	"net/http"
	"strconv"
	"strings"
	"time"
)

// RateLimit is what an upstream says of its limit on pulls, as Docker Hub does
// with each manifest ("Pull usage and limits" in its manual). Upstreams that
// set no limit for the caller say nothing.
type RateLimit struct {
	Limit, Remaining int           // pulls in a window
	Window           time.Duration // 0 if it is not told
	// Source is whom the upstream counts, where it says so: an address, or the
	// number of an account.
	Source string
	// At is when it was said.
	At time.Time
}

// RateLimit returns what the upstream said last, if it ever did.
func (r *Registry) RateLimit() (RateLimit, bool) {
	limit := r.limit.Load()
	if limit == nil {
		return RateLimit{}, false
	}
	return *limit, true
}

// scarcest returns, by the names that metrics have for upstreams, what was said
// last by the one that has the fewest pulls left, as a pattern is one name for
// many hosts.
func (c *Client) scarcest() map[string]RateLimit {
	c.mu.Lock()
	registries := c.registries.Values()
	c.mu.Unlock()
	limits := make(map[string]RateLimit)
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

// noteLimit keeps what an answer of the registry itself says.
func (r *Registry) noteLimit(resp *http.Response) {
	if !r.own(resp.Request.URL) {
		return
	}
	limit, window, ok := parseLimit(resp.Header.Get("RateLimit-Limit"))
	remaining, _, known := parseLimit(resp.Header.Get("RateLimit-Remaining"))
	if !ok || !known {
		return
	}
	source := resp.Header.Get("Docker-RateLimit-Source")
	r.limit.Store(&RateLimit{limit, remaining, window, source[:min(len(source), 100)], time.Now()})
}

// parseLimit reads "100;w=21600", the window in seconds.
func parseLimit(v string) (n int, window time.Duration, ok bool) {
	count, params, _ := strings.Cut(v, ";")
	n, err := strconv.Atoi(strings.TrimSpace(count))
	if err != nil || n < 0 {
		return 0, 0, false
	}
	for param := range strings.SplitSeq(params, ";") {
		key, value, _ := strings.Cut(strings.TrimSpace(param), "=")
		if s, err := strconv.ParseUint(value, 10, 31); err == nil && key == "w" {
			window = time.Duration(s) * time.Second
		}
	}
	return n, window, true
}
