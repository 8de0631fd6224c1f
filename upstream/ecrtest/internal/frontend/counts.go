package frontend

import (
	"maps"
	"net/http"
	"sync"
)

// requestCounts counts the requests of each kind.
type requestCounts struct {
	mu       sync.Mutex // guards the fields below
	requests map[Op]int
	heads    map[Op]int
}

func (c *requestCounts) add(op Op, method string) {
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
