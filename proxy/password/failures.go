package password

import (
	"net/netip"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
	"golang.org/x/time/rate"
)

const (
	// burst is how many wrong passwords an address may try at once, and refill after how long it
	// may try one more: enough for people, and for a node whose pods pull with an old password.
	burst  = 10
	refill = 6 * time.Second
	// maxAddresses bounds the addresses that are known. Those that came longest ago are forgotten.
	maxAddresses = 4096
)

// failures bounds the wrong passwords of each client, by its network. It is safe for concurrent use.
type failures struct {
	mu        sync.Mutex // guards what follows
	addresses *simplelru.LRU[netip.Prefix, *attempts]
}

// attempts are those of one address.
type attempts struct {
	limiter *rate.Limiter
	running int
}

func newFailures() *failures {
	all, _ := simplelru.NewLRU[netip.Prefix, *attempts](maxAddresses, nil) // fails only for a size that is not positive
	return &failures{addresses: all}
}

// begin reports whether an address may try a password. Then end must be called. Those that are being
// tried count as wrong until they have ended.
func (f *failures) begin(from netip.Prefix) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	a, ok := f.addresses.Get(from)
	if !ok {
		a = &attempts{limiter: rate.NewLimiter(rate.Every(refill), burst)}
		f.addresses.Add(from, a)
	}
	if a.limiter.Tokens() < float64(a.running+1) {
		return false
	}
	a.running++
	return true
}

// end ends what begin began.
func (f *failures) end(from netip.Prefix, wrong bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	a, ok := f.addresses.Peek(from)
	if !ok {
		return // forgotten meanwhile
	}
	a.running = max(a.running-1, 0) // it may have been forgotten and be new
	if wrong {
		a.limiter.Allow()
	}
}
