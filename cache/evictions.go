package cache

import (
	"slices"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
)

// Eviction is something that was removed, to make room or because somebody said
// so.
type Eviction struct {
	At      time.Time     `json:"at"`
	Digest  digest.Digest `json:"digest"`
	Bytes   int64         `json:"bytes"` // of disk, that it took
	Reason  string        `json:"reason"`
	Partial bool          `json:"partial"` // it was not complete
	// Repositories are some of those that held it to the end. What is removed from
	// all of them goes without.
	Repositories []string `json:"repositories,omitempty"`
}

const (
	// maxEvictions is how many evictions are remembered: as many as fit on a page.
	maxEvictions = 50
	// maxEvictedFrom bounds the repositories of each: some layers are in hundreds.
	maxEvictedFrom = 4
)

// evictions are the latest ones. It is safe for concurrent use.
type evictions struct {
	mu     sync.Mutex // guards what follows
	latest []Eviction // in order, the latest at the end
}

func (e *evictions) add(ev Eviction) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.latest) == maxEvictions {
		e.latest = slices.Delete(e.latest, 0, 1)
	}
	e.latest = append(e.latest, ev)
}

// Evictions returns the latest evictions since the store was opened, the very
// latest first. It returns at once.
func (s *Store) Evictions() []Eviction {
	s.evicted.mu.Lock()
	latest := slices.Clone(s.evicted.latest)
	s.evicted.mu.Unlock()
	slices.Reverse(latest)
	return latest
}

// someRepositories returns some of the repositories that are known to contain a
// blob, for people to read.
func (s *Store) someRepositories(d digest.Digest) []string {
	repos, _ := s.index.Repositories(d, maxEvictedFrom)
	var names []string
	for _, repo := range repos {
		names = append(names, repo.String())
	}
	return names
}
