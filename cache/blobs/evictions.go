package blobs

import (
	"slices"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
)

// Eviction is a blob or a partial download that was removed.
type Eviction struct {
	At      time.Time     `json:"at"`
	Digest  digest.Digest `json:"digest"`
	Bytes   int64         `json:"bytes"` // of disk, that it took
	Reason  string        `json:"reason"`
	Partial bool          `json:"partial"` // it was not complete
	// Repositories are some of those that had it to the end. What was removed from all of
	// them has none.
	Repositories []string `json:"repositories,omitempty"`
}

const (
	// maxEvictions is how many evictions are remembered: as many as fit on a page.
	maxEvictions = 50
	// maxEvictedFrom bounds the repositories of each: some layers are in hundreds.
	maxEvictedFrom = 4
)

// evictions are the latest ones. Its methods may be called from several goroutines at once.
type evictions struct {
	mu     sync.Mutex // guards what follows
	latest []Eviction // the latest at the end
}

func (e *evictions) add(ev Eviction) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.latest) == maxEvictions {
		e.latest = slices.Delete(e.latest, 0, 1)
	}
	e.latest = append(e.latest, ev)
}

// list returns the latest evictions, the latest first.
func (e *evictions) list() []Eviction {
	e.mu.Lock()
	latest := slices.Clone(e.latest)
	e.mu.Unlock()
	slices.Reverse(latest)
	return latest
}

// Evictions returns the latest evictions, the latest first. It returns at once.
func (s *Store) Evictions() []Eviction { return s.evicted.list() }

// someRepositories returns some of the repositories that are known to have a blob.
func (s *Store) someRepositories(d digest.Digest) []string {
	repos, _ := s.Index.Repositories(d, maxEvictedFrom) // people read it, and can do without
	var names []string
	for _, r := range repos {
		names = append(names, r.String())
	}
	return names
}
