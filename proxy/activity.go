package proxy

import (
	"net/http"
	"sync/atomic"

	"github.com/larder-registry/larder/cache"
)

// Activity is what a daemon is about. Sums are since it was started.
type Activity struct {
	cache.Activity
	Requests Requests `json:"requests"`
	Served   int64    `json:"served"` // bytes of bodies, sent to clients
	Passed   int64    `json:"passed"` // of these, bytes of blobs that were passed through and not kept
}

// Requests counts those for something in a repository, by how they were
// answered: by X-Cache, or as failed whatever that says.
type Requests struct {
	Hit    int64 `json:"hit"`
	Miss   int64 `json:"miss"`
	Stale  int64 `json:"stale"`
	Bypass int64 `json:"bypass"`
	Failed int64 `json:"failed"`
}

// counters are safe for concurrent use.
type counters struct {
	hit, miss, stale, bypass, failed, served, passed atomic.Int64
}

// count takes an answer that is over into account.
func (c *counters) count(w *recorder, t target, aborted bool) {
	c.served.Add(w.bytes)
	if t.repo.Name == "" {
		return
	}
	state := cache.State(w.Header().Get(xCache))
	if state == cache.Bypass {
		c.passed.Add(w.bytes)
	}
	by := &c.miss
	switch {
	case aborted || w.status == 0 || w.status >= http.StatusBadRequest:
		by = &c.failed
	case state == cache.Hit:
		by = &c.hit
	case state == cache.Stale:
		by = &c.stale
	case state == cache.Bypass:
		by = &c.bypass
	}
	by.Add(1)
}

// Activity returns at once, and may be called every second.
func (p *Proxy) Activity() Activity {
	c := &p.counters
	return Activity{
		Activity: p.store.Activity(),
		Requests: Requests{
			Hit:    c.hit.Load(),
			Miss:   c.miss.Load(),
			Stale:  c.stale.Load(),
			Bypass: c.bypass.Load(),
			Failed: c.failed.Load(),
		},
		Served: c.served.Load(),
		Passed: c.passed.Load(),
	}
}
