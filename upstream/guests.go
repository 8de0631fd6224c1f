package upstream

import (
	"net/url"

	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/larder-registry/larder/upstream/auth"
	"github.com/larder-registry/larder/upstream/guard"
)

// guests has the anonymous tokens for other registries, to which one redirects. It is
// safe for concurrent use.
type guests struct {
	open func(registry *url.URL) *auth.Challenged
	all  *lru.Cache[string, *auth.Challenged] // by origin
}

// maxGuests bounds the registries whose tokens are kept. One redirects to a few.
const maxGuests = 16

// newGuests returns one without tokens. open returns the anonymous login at a
// registry.
func newGuests(open func(registry *url.URL) *auth.Challenged) *guests {
	all, _ := lru.New[string, *auth.Challenged](maxGuests) // fails only for a size that is not positive
	return &guests{open, all}
}

// at returns the login at a URL's registry, and nil if none was added.
func (g *guests) at(to *url.URL) credentials {
	if found, ok := g.all.Get(guard.Origin(to)); ok {
		return found
	}
	return nil
}

// add returns the login at a URL's registry, from now on.
func (g *guests) add(to *url.URL) credentials {
	added := g.open(&url.URL{Scheme: to.Scheme, Host: to.Host})
	if found, ok, _ := g.all.PeekOrAdd(guard.Origin(to), added); ok {
		return found // a concurrent request added it
	}
	return added
}
