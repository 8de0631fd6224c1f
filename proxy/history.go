package proxy

import (
	"slices"
	"sync"
	"time"
)

// Sample is what had been done at some time since the daemon was started.
type Sample struct {
	At int64 `json:"at"` // seconds since 1970
	Requests
	Served  int64 `json:"served"`  // bytes of bodies, sent to clients
	Fetched int64 `json:"fetched"` // bytes of blobs, from upstreams into the cache
	Passed  int64 `json:"passed"`  // bytes of those served that were not kept
}

func sampleOf(a Activity, now time.Time) Sample {
	return Sample{At: now.Unix(), Requests: a.Requests, Served: a.Served, Fetched: a.Fetched, Passed: a.Passed}
}

const (
	// sampleEvery is between two samples of the last hour, and coarseEvery between
	// two of the last day: some 60 KiB in all.
	sampleEvery = 10 * time.Second
	maxSamples  = int(time.Hour / sampleEvery)
	coarseEvery = 5 * time.Minute
	maxCoarse   = int(24 * time.Hour / coarseEvery)
)

// History is what was sampled: densely of the last hour, and coarsely of the last
// day. Both are in order.
type History struct {
	Hour []Sample `json:"hour"`
	Day  []Sample `json:"day"`
}

// history keeps samples. It is safe for concurrent use.
type history struct {
	mu sync.Mutex // guards what follows
	History
}

func (h *history) add(s Sample) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.Hour = push(h.Hour, s, maxSamples)
	if n := len(h.Day); n == 0 || s.At-h.Day[n-1].At >= int64(coarseEvery/time.Second) {
		h.Day = push(h.Day, s, maxCoarse)
	}
}

// all returns a copy.
func (h *history) all() History {
	h.mu.Lock()
	defer h.mu.Unlock()
	return History{Hour: slices.Clone(h.Hour), Day: slices.Clone(h.Day)}
}

// push appends to what has room for most samples and the oldest of them goes.
func push(samples []Sample, s Sample, most int) []Sample {
	if len(samples) > most { // one more than intervals
		samples = slices.Delete(samples, 0, 1)
	}
	return append(samples, s)
}
