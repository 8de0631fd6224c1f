package proxy

import (
	"net/http"
	"sync/atomic"

	"github.com/larder-registry/larder/cache"
)

// Traffic sums up what clients were sent since the proxy was made.
type Traffic struct {
	Requests Requests `json:"requests"`
	Served   int64    `json:"served"` // bytes of response bodies, but those of errors
	Passed   int64    `json:"passed"` // those of Served that were blob content passed through and not cached
	// Runtimes are the kinds of clients that have asked for content. It is never nil.
	Runtimes []Runtime `json:"runtimes"`
}

// Requests counts the requests that named a repository. A failed request counts as
// Failed alone, whatever its X-Cache header said.
type Requests struct {
	Hit    int64 `json:"hit"`
	Miss   int64 `json:"miss"`
	Stale  int64 `json:"stale"`
	Bypass int64 `json:"bypass"`
	Failed int64 `json:"failed"`
}

// counters counts what [Traffic] reports. It is safe for concurrent use.
type counters struct {
	hit, miss, stale, bypass, failed, served, passed atomic.Int64

	runtimes runtimes
}

// count adds a finished response to a client with this User-Agent.
func (c *counters) count(w *recorder, t target, agent string, aborted bool) {
	c.served.Add(w.content())
	if t.repo.Name == "" {
		return
	}
	c.runtimes.note(agent, w.start)
	state := cache.State(w.Header().Get(xCache))
	if state == cache.Bypass {
		c.passed.Add(w.content())
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

func (c *counters) sum() Traffic {
	return Traffic{
		Requests: Requests{
			Hit:    c.hit.Load(),
			Miss:   c.miss.Load(),
			Stale:  c.stale.Load(),
			Bypass: c.bypass.Load(),
			Failed: c.failed.Load(),
		},
		Served:   c.served.Load(),
		Passed:   c.passed.Load(),
		Runtimes: c.runtimes.list(),
	}
}
