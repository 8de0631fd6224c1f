package auth

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/net/publicsuffix"

	"github.com/larder-registry/larder/upstream/guard"
)

// Challenged authenticates at one registry as its challenges ask: anonymously, by
// basic authentication, or with bearer tokens that a token service issues for each
// repository (distribution-spec and Docker's page "Token Authentication"). It is
// safe for concurrent use.
type Challenged struct {
	endpoint *url.URL
	logins   Logins
	check    Checker
	log      *slog.Logger
	service  *tokenService
	refusals *lru.Cache[string, *Refusals] // by scope; of the tokens that were refused last

	mu   sync.Mutex // guards what follows
	last challenge  // the registry's latest
}

// Checker refuses URLs to which an upstream may not lead.
type Checker interface {
	Check(use string, from, to *url.URL) error
}

// Options are the settings of a [Challenged]. All are needed.
type Options struct {
	// Endpoint is the URL of the registry.
	Endpoint *url.URL
	// Logins has the login for the registry.
	Logins Logins
	// Transport sends requests to the token service.
	Transport http.RoundTripper
	// Check is asked whether the registry may name a token service.
	Check Checker
	// Timeout bounds each request for a token.
	Timeout time.Duration
	// Log has the challenges that are refused.
	Log *slog.Logger
}

// New returns a Challenged that has seen no challenge.
func New(opts Options) *Challenged {
	refusals, _ := lru.New[string, *Refusals](maxScopes) // fails only for a size that is not positive
	return &Challenged{
		endpoint: opts.Endpoint,
		logins:   opts.Logins,
		check:    opts.Check,
		log:      opts.Log,
		service:  newTokenService(opts),
		refusals: refusals,
	}
}

// usedBasic stands for the password where a bearer token stands for itself.
const usedBasic = "basic"

// errRealm does not quote the realm, which may be long and hold a password.
var errRealm = errors.New("the realm is not a URL")

// latest returns the registry's latest challenge.
func (a *Challenged) latest() challenge {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.last
}

// Authorize sets the credentials of a request for a repository, or of one to log
// in if that is "". used tells these credentials apart from later ones.
func (a *Challenged) Authorize(ctx context.Context, req *http.Request, repository string) (used string, err error) {
	last := a.latest()
	switch last.scheme {
	case "basic":
		l, err := a.logins.Login(ctx)
		if err != nil || l.Username == "" {
			return "", err
		}
		req.SetBasicAuth(l.Username, l.Password) // RFC 7617
		return usedBasic, nil
	case "bearer":
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
	if r, ok := a.refusals.Peek(a.latest().scope(repository)); ok {
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
	if bearer && !a.dropToken(used, a.latest().scope(repository)) {
		return false, nil
	}
	c, ok := parseChallenge(resp.Header)
	if !ok {
		// ECR Public answers 400 to a token that expired.
		return bearer && resp.StatusCode == http.StatusBadRequest, nil
	}
	switch c.scheme {
	case "basic":
		if username, password, sent := resp.Request.BasicAuth(); sent {
			return a.logins.Refused(Login{Username: username, Password: password}), nil
		}
		if l, err := a.logins.Login(ctx); err != nil || l.Username == "" {
			return false, err
		}
	case "bearer":
		if err := a.checkRealm(c.params["realm"]); err != nil {
			a.log.Warn("the upstream's token service is refused", "error", err)
			return false, err
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.last = c
	return true, nil
}

// dropToken forgets a token that the registry refused, and reports whether to ask
// for another one.
func (a *Challenged) dropToken(used, scope string) bool {
	r, ok := a.refusals.Get(scope)
	if !ok {
		r = NewRefusals(time.Now)
		a.refusals.Add(scope, r)
	}
	if !r.Renew(used) {
		return false
	}
	a.service.drop(scope, used)
	return true
}

// checkRealm refuses a token service to which the upstream may not send us and our
// password. It must be on the registry's own host or in the same registrable
// domain, and use HTTPS unless the registry does not (CVE-2026-33540).
func (a *Challenged) checkRealm(realm string) error {
	const use = "a token request"
	u, err := url.Parse(realm)
	if err != nil {
		return errRealm
	}
	if err := a.check.Check(use, a.endpoint, u); err != nil {
		return err
	}
	if u.Hostname() == a.endpoint.Hostname() {
		return nil
	}
	theirs, err1 := publicsuffix.EffectiveTLDPlusOne(u.Hostname())
	ours, err2 := publicsuffix.EffectiveTLDPlusOne(a.endpoint.Hostname())
	if err1 != nil || err2 != nil || theirs != ours {
		return guard.Refuse(use, u)
	}
	return nil
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
func (a *Challenged) Expires() time.Time { return a.service.expires() }

// TokenExpires returns when the bearer token for a repository expires, or the zero
// time if there is none.
func (a *Challenged) TokenExpires(repository string) time.Time {
	return a.service.expiresFor(a.latest().scope(repository))
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
