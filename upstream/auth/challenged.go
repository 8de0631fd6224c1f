package auth

import (
	"context"
	"log/slog"
	"net/http"
	"net/url"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
)

// Challenged authenticates at one registry as its challenges ask: anonymously, by
// basic authentication, or with bearer tokens that a token service issues for each
// repository (distribution-spec and Docker's page "Token Authentication"). It is
// safe for concurrent use.
type Challenged struct {
	logins   Logins
	realms   realms
	log      *slog.Logger
	service  *tokenService
	refusals *lru.Cache[tokenKey, *Refusals] // of the tokens that were refused last

	mu   sync.Mutex // guards what follows
	last challenge  // the registry's latest
}

// Options are the settings of a [Challenged]. All but Realms are needed.
type Options struct {
	// Endpoint is the URL of the registry.
	Endpoint *url.URL
	// Logins has the login for the registry.
	Logins Logins
	// Transport sends requests to the token service.
	Transport http.RoundTripper
	// Check is asked whether the registry may name a token service.
	Check Checker
	// Realms are the host[:port] of token services that get the login, beside the
	// registry's own. It may be empty.
	Realms []string
	// Timeout bounds each request for a token.
	Timeout time.Duration
	// Log has the challenges that are refused.
	Log *slog.Logger
}

func (o Options) realms() realms { return realms{o.Endpoint, o.Realms, o.Check} }

// New returns a Challenged that has seen no challenge.
func New(opts Options) *Challenged {
	refusals, _ := lru.New[tokenKey, *Refusals](maxScopes) // fails only for a size that is not positive
	return &Challenged{
		logins:   opts.Logins,
		realms:   opts.realms(),
		log:      opts.Log,
		service:  newTokenService(opts),
		refusals: refusals,
	}
}

// usedBasic stands for the password where a bearer token stands for itself.
const usedBasic = "basic"

// latest returns the registry's latest challenge.
func (a *Challenged) latest() challenge {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.last
}

// Learn takes over the registry's latest challenge from another one, at the same registry, so that
// the first request has credentials.
func (a *Challenged) Learn(from *Challenged) {
	c := from.latest()
	a.mu.Lock()
	defer a.mu.Unlock()
	a.last = c
}

// Authorize sets the credentials of a request for a repository, or of one to log
// in if that is "". used tells these credentials apart from later ones.
func (a *Challenged) Authorize(ctx context.Context, req *http.Request, repository string) (used string, err error) {
	last := a.latest()
	switch last.scheme {
	case schemeBasic:
		l, err := a.logins.Login(ctx)
		if err != nil || l.Username == "" {
			return "", err
		}
		req.SetBasicAuth(l.Username, l.Password) // RFC 7617
		return usedBasic, nil
	case schemeBearer:
		token, err := a.service.token(ctx, last, repository)
		if err != nil {
			return "", err
		}
		req.Header.Set("Authorization", "Bearer "+token)
		return token, nil
	}
	return "", nil
}

// Accepted records an answer that shows the credentials to be good.
func (a *Challenged) Accepted(used, repository string) {
	if used == "" || used == usedBasic {
		return
	}
	if r, ok := a.refusals.Peek(a.latest().key(repository)); ok {
		r.Accepted(used)
	}
}

// Refused looks at an answer of 400, 401 or 403, and reports whether Authorize now
// has other credentials for the request: a token in place of one that expired, or
// those for a new challenge. It leaves the body to be read again.
func (a *Challenged) Refused(ctx context.Context, resp *http.Response, used, repository string) (retry bool, err error) {
	bearer := used != "" && used != usedBasic
	if bearer && resp.StatusCode == http.StatusForbidden {
		a.Accepted(used, repository)
		return false, nil // the token is known, and does not allow this
	}
	latest := a.latest()
	if bearer && !a.dropToken(used, latest.key(repository)) {
		return false, nil
	}
	offered := parseChallenges(resp.Header)
	if len(offered) == 0 {
		// ECR Public answers 400 to a token that expired.
		if !bearer || resp.StatusCode != http.StatusBadRequest {
			return false, nil
		}
		return a.renew(ctx, used, latest.key(repository), latest, repository)
	}
	c, ok, err := a.choose(ctx, offered)
	if err != nil || !ok {
		return false, err
	}
	if username, password, sent := resp.Request.BasicAuth(); sent && c.scheme == schemeBasic {
		return a.logins.Refused(Login{Username: username, Password: password}), nil
	}
	a.mu.Lock()
	a.last = c
	a.mu.Unlock()
	if bearer && c.scheme == schemeBearer {
		return a.renew(ctx, used, latest.key(repository), c, repository)
	}
	return true, nil
}

// renew gets the token that takes the place of one that was refused, which had this key, and
// reports whether it is another one. Authorize finds it.
func (a *Challenged) renew(ctx context.Context, used string, refused tokenKey, c challenge, repository string) (isNew bool, err error) {
	next, err := a.service.token(ctx, c, repository)
	if err != nil {
		return false, err
	}
	if r, ok := a.refusals.Peek(refused); ok {
		r.Renewed(used, next)
	}
	return next != used, nil
}

// choose returns the best challenge that can be met, wherever it stands: the first
// whose token service may be asked, else a basic one if there is a password. If
// none can be, the error is that of the last token service.
func (a *Challenged) choose(ctx context.Context, offered []challenge) (best challenge, ok bool, err error) {
	l, err := a.logins.Login(ctx)
	if err != nil {
		return challenge{}, false, err
	}
	for _, c := range offered {
		if c.scheme != schemeBearer {
			continue
		}
		var service *url.URL
		if service, err = a.realms.parse(c); err == nil {
			err = a.realms.check(service, l)
		}
		if err == nil {
			return c, true, nil
		}
	}
	for _, c := range offered {
		if c.scheme == schemeBasic && l.Username != "" {
			return c, true, nil
		}
	}
	if err != nil {
		a.log.Warn("the upstream's token service is refused", "error", err)
	}
	return challenge{}, false, err
}

// dropToken forgets a token that the registry refused, and reports whether to ask
// for another one.
func (a *Challenged) dropToken(used string, key tokenKey) bool {
	r := NewRefusals(time.Now)
	if other, ok, _ := a.refusals.PeekOrAdd(key, r); ok {
		r = other
		a.refusals.Get(key) // it was used
	}
	if !r.Renew(used) {
		return false
	}
	a.service.drop(key, used)
	return true
}

// Anonymous reports whether requests are anonymous: the latest token was got
// without a login or, before the first token, there is no login.
func (a *Challenged) Anonymous(ctx context.Context) bool {
	if known, anonymous := a.service.anonymous(); known {
		return anonymous
	}
	l, err := a.logins.Login(ctx)
	return err != nil || l == Login{}
}

// Scheme returns how the registry asks to authenticate: "basic", "bearer", or ""
// before its first challenge.
func (a *Challenged) Scheme() string { return a.latest().scheme }

// Expires returns when the bearer token that lasts longest expires, or the zero
// time if there is none.
func (a *Challenged) Expires() time.Time { return a.service.expires(a.latest()) }

// TokenExpires returns when the bearer token for a repository expires, or the zero
// time if there is none.
func (a *Challenged) TokenExpires(repository string) time.Time {
	return a.service.expiresFor(a.latest().key(repository))
}

// Account is a login without its secret.
type Account struct {
	// Name is the user name. It is "" for an anonymous login, and for a token that
	// stands for it.
	Name string
	// Source is the file or helper that the login is from; "" if there is none.
	Source string
}

// Account returns the login for the registry.
func (a *Challenged) Account(ctx context.Context) (Account, error) {
	l, err := a.logins.Login(ctx)
	if err != nil || l == (Login{}) {
		return Account{}, err
	}
	return Account{l.Username, a.logins.From()}, nil
}
