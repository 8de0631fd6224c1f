package ecrtest

import (
	"maps"
	"net/http"
	"sync"
	"sync/atomic"

	"github.com/opencontainers/go-digest"
)

// Stats is what a server did since it began, or since ResetStats.
type Stats struct {
	Tokens   int        // issued
	Requests map[Op]int // that came, whatever became of them, by single Op
	Heads    map[Op]int // of these, how many were HEAD
	Exceeded int        // of these, how many came too soon for SetRateLimit or SetPullLimit
	Blobs    map[digest.Digest]BlobStats
}

// BlobStats is what one blob was asked for, in all repositories together.
type BlobStats struct {
	Redirects int   // signed URLs handed out
	Requests  int   // to storage, whatever became of them
	Bytes     int64 // of it that storage wrote to clients' connections
}

// Bytes returns how many bytes of blobs storage wrote, all together.
func (s Stats) Bytes() int64 {
	var n int64
	for _, b := range s.Blobs {
		n += b.Bytes
	}
	return n
}

// Stats returns the counts as they are now. A byte that a client has received
// is in them.
func (s *Server) Stats() Stats {
	st := Stats{Tokens: int(s.tokens.Load()), Blobs: make(map[digest.Digest]BlobStats)}
	st.Requests, st.Heads = s.stats.clone()
	s.limits.mu.Lock()
	st.Exceeded = s.limits.exceeded
	s.limits.mu.Unlock()
	s.mu.RLock()
	defer s.mu.RUnlock()
	for dgst, b := range s.blobs {
		st.Blobs[dgst] = b.counts.stats()
	}
	return st
}

// ResetStats sets all counts to zero. Answers under way go on counting.
func (s *Server) ResetStats() {
	s.tokens.Store(0)
	s.stats.reset()
	s.limits.mu.Lock()
	s.limits.exceeded = 0
	s.limits.mu.Unlock()
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, b := range s.blobs {
		b.counts.reset()
	}
}

type requestCounts struct {
	mu       sync.Mutex // guards what follows
	requests map[Op]int
	heads    map[Op]int
}

func (c *requestCounts) count(op Op, method string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.requests == nil {
		c.requests, c.heads = make(map[Op]int), make(map[Op]int)
	}
	c.requests[op]++
	if method == http.MethodHead {
		c.heads[op]++
	}
}

func (c *requestCounts) clone() (requests, heads map[Op]int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.requests), maps.Clone(c.heads)
}

func (c *requestCounts) reset() {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.requests)
	clear(c.heads)
}

type blobCounts struct {
	redirects, requests, bytes atomic.Int64
}

func (c *blobCounts) stats() BlobStats {
	return BlobStats{
		Redirects: int(c.redirects.Load()),
		Requests:  int(c.requests.Load()),
		Bytes:     c.bytes.Load(),
	}
}

func (c *blobCounts) reset() {
	c.redirects.Store(0)
	c.requests.Store(0)
	c.bytes.Store(0)
}
