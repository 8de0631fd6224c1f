package cache

import (
	"maps"
	"sync"
	"sync/atomic"
)

// Activity is what a store is about. Sums are since it was opened; sizes are in
// bytes.
type Activity struct {
	Bytes    int64 `json:"bytes"`    // what the folder takes
	MaxSize  int64 `json:"maxSize"`  // what it may take; 0 for any number
	Free     int64 `json:"free"`     // of the file system
	Fills    int   `json:"fills"`    // that run
	Fetched  int64 `json:"fetched"`  // of blobs, from upstreams into the cache
	Evicted  int64 `json:"evicted"`  // of disk, that was freed
	Scrubbed int64 `json:"scrubbed"` // of blobs at rest, that were read and checked
	Damaged  int64 `json:"damaged"`  // blobs at rest that were
	// Evictions counts blobs and partials by the reason why they were removed.
	Evictions map[string]int64 `json:"evictions"`
	// Degraded is why nothing is kept at the moment, or empty: see
	// [Store.Degraded].
	Degraded string `json:"degraded,omitempty"`
}

// Activity returns at once, and may be called every second.
func (s *Store) Activity() Activity {
	free, _ := s.folder.Free() // the error is in Degraded
	a := s.metrics.counts.read()
	a.Bytes, a.MaxSize, a.Free = s.space.Size(), s.space.MaxSize(), free
	if err := s.Degraded(); err != nil {
		a.Degraded = err.Error()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	a.Fills = len(s.filling)
	return a
}

// counts are sums that instruments keep to themselves. It is safe for
// concurrent use.
type counts struct {
	fetched, scrubbed, damaged atomic.Int64

	mu        sync.Mutex // guards what follows
	freed     int64
	evictions map[string]int64
}

func (c *counts) evicted(bytes int64, reason string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.freed += bytes
	if c.evictions == nil {
		c.evictions = make(map[string]int64)
	}
	c.evictions[reason]++
}

func (c *counts) read() Activity {
	c.mu.Lock()
	defer c.mu.Unlock()
	a := Activity{
		Fetched:   c.fetched.Load(),
		Scrubbed:  c.scrubbed.Load(),
		Damaged:   c.damaged.Load(),
		Evicted:   c.freed,
		Evictions: map[string]int64{},
	}
	maps.Copy(a.Evictions, c.evictions)
	return a
}
