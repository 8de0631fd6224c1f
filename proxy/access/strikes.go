package access

import (
	"net/netip"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/time/rate"

	"github.com/larder-registry/larder/upstream/name"
)

const (
	// strikeBurst is how many credentials that an upstream refuses a client may try at once,
	// and strikeEvery after how long it may try one more.
	strikeBurst = 20
	strikeEvery = time.Second
	// maxStrikes bounds the clients that are kept.
	maxStrikes = 4096
)

// strikes counts the refused credentials of each client, by its network. It is safe for concurrent use.
type strikes struct {
	all *lru.Cache[netip.Prefix, *rate.Limiter]
}

func newStrikes() *strikes {
	all, _ := lru.New[netip.Prefix, *rate.Limiter](maxStrikes) // fails only for a size that is not positive
	return &strikes{all}
}

// MayTry reports whether a client at an address, which has a port, may have an upstream asked about a
// credential that is not known. [Gate.Struck] counts those that were refused.
func (g *Gate) MayTry(address string) bool {
	from, _ := name.Network(address) // all others count as one client
	l, ok := g.strikes.all.Get(from)
	return !ok || l.TokensAt(g.now()) >= 1
}

// Struck counts a credential of an address that an upstream has refused.
func (g *Gate) Struck(address string) {
	from, _ := name.Network(address)
	l := rate.NewLimiter(rate.Every(strikeEvery), strikeBurst)
	if known, ok, _ := g.strikes.all.PeekOrAdd(from, l); ok {
		l = known
	}
	l.AllowN(g.now(), 1)
}
