package upstream

import (
	"context"
	"sync/atomic"

	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/larder-registry/larder/upstream/auth"
)

// authenticator is how requests with one login authenticate at a site. It is safe for concurrent
// use.
type authenticator struct {
	credentials
	challenged *auth.Challenged // the same; nil if they are tokens of ECR's API
	stranger   stranger         // while the registry has not challenged
}

// maxClients bounds the logins of clients that are kept at one site.
const maxClients = 256

// clients has the authenticators of the logins that clients have. It is safe for concurrent use.
type clients struct {
	open   func(auth.Logins) *auth.Challenged
	all    *lru.Cache[auth.Login, *authenticator]
	latest atomic.Pointer[auth.Challenged] // knows a challenge of the registry, if one of these does
}

// newClients returns one without logins. open returns a Challenged at the site.
func newClients(open func(auth.Logins) *auth.Challenged) *clients {
	all, _ := lru.New[auth.Login, *authenticator](maxClients) // fails only for a size that is not positive
	return &clients{open: open, all: all}
}

// at returns the authenticator of a login. A new one knows the challenge of the others, or that of
// own, which may be nil: so its first request has the credentials.
func (c *clients) at(l auth.Login, configured *auth.Challenged) *authenticator {
	if found, ok := c.all.Get(l); ok {
		return found
	}
	added := c.open(auth.Given(l))
	for _, other := range []*auth.Challenged{c.latest.Load(), configured} {
		if other != nil && added.Scheme() == "" {
			added.Learn(other)
		}
	}
	a := &authenticator{credentials: added, challenged: added}
	if found, ok, _ := c.all.PeekOrAdd(l, a); ok {
		return found // a concurrent request added it
	}
	c.latest.Store(added)
	return a
}

// as returns how the requests of a context authenticate: with the login of a client if the context
// has one, otherwise with that of the configuration.
func (s *site) as(ctx context.Context) *authenticator {
	if l, ok := auth.Of(ctx); ok {
		return s.clients.at(l, s.configured.challenged)
	}
	return s.configured
}
