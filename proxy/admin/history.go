package admin

import (
	"slices"
	"sync"
	"time"

	"github.com/larder-registry/larder/proxy"
)

// Sample is what a daemon has done from its start until some time.
type Sample struct {
	At int64 `json:"at"` // seconds since 1970
	proxy.Requests
	Served  int64 `json:"served"`  // bytes of response bodies, sent to clients, but those of errors
	Fetched int64 `json:"fetched"` // bytes of blobs, fetched from upstreams into the cache
	Passed  int64 `json:"passed"`  // bytes of Served that were not cached
}

const (
	// sampleEvery is the time between two samples of the last hour, and coarseEvery
	// between two of the last day. Together they take some 60 KiB.
	sampleEvery = 10 * time.Second
	maxSamples  = int(time.Hour / sampleEvery)
	coarseEvery = 5 * time.Minute
	maxCoarse   = int(24 * time.Hour / coarseEvery)
)

// History has samples of the last hour and, fewer, of the last day. Both lists are in
// order.
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

// push appends a sample and drops the oldest one if there are more than intervals
// intervals between them.
func push(samples []Sample, s Sample, intervals int) []Sample {
	if len(samples) > intervals {
		samples = slices.Delete(samples, 0, 1)
	}
	return append(samples, s)
}
