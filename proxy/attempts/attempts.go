// Package attempts bounds how many wrong credentials a client may try, by its network. It starts no
// goroutine.
package attempts

import (
	"net/netip"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
	"golang.org/x/time/rate"
)

// maxClients bounds the clients that are known. Those that came longest ago are forgotten.
const maxClients = 4096

// Bound counts the wrong credentials of each client. It is safe for concurrent use.
type Bound struct {
	refill time.Duration
	burst  int

	mu      sync.Mutex // guards what follows, and each client
	clients *simplelru.LRU[netip.Prefix, *client]
}

// client has the attempts of one client. Those that run are in an entry of running for each credential.
type client struct {
	limiter *rate.Limiter
	running map[ID]*trial
}

// trial is a credential that is being tried, by so many attempts.
type trial struct {
	attempts int
	wrong    bool
}

// ID tells credentials apart: a keyed hash of one.
type ID [32]byte

// New returns a bound by which a client may try burst wrong credentials at once, and then one after
// each refill.
func New(burst int, refill time.Duration) *Bound {
	clients, _ := simplelru.NewLRU[netip.Prefix, *client](maxClients, nil) // fails only for a size that is not positive
	return &Bound{refill: refill, burst: burst, clients: clients}
}

// Begin reports whether the client of a network may try a credential. If it may, end must be called
// once, with whether the credential is wrong. A credential that is being tried counts as wrong until it
// has ended; one that is tried several times at once counts once.
func (b *Bound) Begin(from netip.Prefix, id ID) (end func(wrong bool), ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	c, ok := b.clients.Get(from)
	if !ok {
		c = &client{rate.NewLimiter(rate.Every(b.refill), b.burst), make(map[ID]*trial)}
		b.clients.Add(from, c)
	}
	t := c.running[id]
	if t == nil {
		if c.limiter.Tokens() < float64(len(c.running)+1) {
			return nil, false
		}
		t = new(trial)
		c.running[id] = t
	}
	t.attempts++
	return func(wrong bool) { b.end(c, id, t, wrong) }, true
}

func (b *Bound) end(c *client, id ID, t *trial, wrong bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	t.wrong = t.wrong || wrong
	if t.attempts--; t.attempts > 0 {
		return
	}
	delete(c.running, id)
	if t.wrong {
		c.limiter.Allow()
	}
}
