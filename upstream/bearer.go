package upstream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/net/publicsuffix"
	"golang.org/x/sync/singleflight"
)

// challenged authenticates as the registry's challenge asks: not at all, by
// basic authentication, or with bearer tokens that a token service issues per
// repository (distribution-spec and the Docker "Token Authentication" page).
type challenged struct {
	endpoint  *url.URL
	logins    logins
	transport *transport
	timeout   time.Duration
	log       *slog.Logger
	calls     *caller // nil counts nothing

	flights singleflight.Group
	tokens  *lru.Cache[string, bearerToken] // by scope
	doubts  *lru.Cache[string, *doubt]      // by scope; of the tokens that were refused last

	named atomic.Pointer[bool] // whether the latest token was for somebody; nil before the first

	mu   sync.Mutex // guards what follows
	last challenge  // the registry's latest
}

type bearerToken struct {
	value string
	until time.Time
}

const (
	// maxTokenAnswer bounds a token service's answer.
	maxTokenAnswer = 1 << 20
	// defaultTokenLife is what the token specification says of an answer
	// without expires_in.
	defaultTokenLife = time.Minute
)

// usedBasic stands for the password where a bearer token stands for itself.
const usedBasic = "basic"

// errRealm does not quote the realm, which may be long and hold a password.
var errRealm = errors.New("the realm is not a URL")

func newChallenged(endpoint *url.URL, l logins, tr *transport, timeout time.Duration, log *slog.Logger) *challenged {
	tokens, _ := lru.New[string, bearerToken](1024) // fails only for a size that is not positive
	doubts, _ := lru.New[string, *doubt](1024)
	return &challenged{
		endpoint: endpoint, logins: l, transport: tr, timeout: timeout, log: log,
		tokens: tokens, doubts: doubts,
	}
}

// latest is the registry's latest challenge.
func (a *challenged) latest() challenge {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.last
}

// scope is what a token must be for. ECR Public has one for all repositories.
func (c challenge) scope(repository string) string {
	if c.params["scope"] == scopeECRPublic {
		return scopeECRPublic
	}
	if repository == "" { // only to log in
		return ""
	}
	return "repository:" + repository + ":pull"
}

func (a *challenged) authorize(ctx context.Context, req *http.Request, repository string) (string, error) {
	last := a.latest()
	switch last.scheme {
	case "basic":
		l, err := a.logins.login(ctx)
		if err != nil || l.username == "" {
			return "", err
		}
		req.SetBasicAuth(l.username, l.password) // RFC 7617
		return usedBasic, nil
	case "bearer":
		token, err := a.token(ctx, last, repository)
		if err != nil {
			return "", err
		}
		req.Header.Set("Authorization", "Bearer "+token)
		return token, nil
	}
	return "", nil
}

// anonymous reports whether requests are nobody's in particular: whether the
// latest token was got without a login or, before the first one, whether there
// is none.
func (a *challenged) anonymous(ctx context.Context) bool {
	if named := a.named.Load(); named != nil {
		return !*named
	}
	l, err := a.logins.login(ctx)
	return err != nil || l == login{}
}

func (a *challenged) accepted(used, repository string) {
	if used == "" || used == usedBasic {
		return
	}
	if d, ok := a.doubts.Peek(a.latest().scope(repository)); ok {
		d.clear(used)
	}
}

func (a *challenged) refused(ctx context.Context, resp *http.Response, used, repository string) (bool, error) {
	bearer := used != "" && used != usedBasic
	if bearer && resp.StatusCode == http.StatusForbidden {
		a.accepted(used, repository)
		return false, nil // the token is known, and not allowed this
	}
	if bearer && !a.drop(used, a.latest().scope(repository)) {
		return false, nil
	}
	c, ok := parseChallenge(resp.Header)
	if !ok {
		// ECR Public says 400 to a token that ran out.
		return bearer && resp.StatusCode == http.StatusBadRequest, nil
	}
	switch c.scheme {
	case "basic":
		if username, password, sent := resp.Request.BasicAuth(); sent {
			return a.logins.refused(login{username: username, password: password}), nil
		}
		if l, err := a.logins.login(ctx); err != nil || l.username == "" {
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

// drop forgets a token that the registry says is no good, unless it says so of
// every one.
func (a *challenged) drop(used, scope string) bool {
	d, ok := a.doubts.Get(scope)
	if !ok {
		d = &doubt{now: time.Now}
		a.doubts.Add(scope, d)
	}
	if !d.renews(used) {
		return false
	}
	if token, ok := a.tokens.Peek(scope); ok && token.value == used {
		a.tokens.Remove(scope)
	}
	return true
}

// checkRealm refuses a token service to which the upstream may not send us, and
// our password: it must be the registry's own host or of the same registrable
// domain, by HTTPS unless the registry itself is without (CVE-2026-33540).
func (a *challenged) checkRealm(realm string) error {
	u, err := url.Parse(realm)
	if err != nil {
		return errRealm
	}
	if err := a.transport.guard.check("a token request", a.endpoint, u); err != nil {
		return err
	}
	if u.Hostname() == a.endpoint.Hostname() {
		return nil
	}
	theirs, err1 := publicsuffix.EffectiveTLDPlusOne(u.Hostname())
	ours, err2 := publicsuffix.EffectiveTLDPlusOne(a.endpoint.Hostname())
	if err1 != nil || err2 != nil || theirs != ours {
		return &refusedError{"a token request", origin(u)}
	}
	return nil
}

// token returns a token for pulls from a repository, from here or the service.
func (a *challenged) token(ctx context.Context, c challenge, repository string) (string, error) {
	scope := c.scope(repository)
	if t, ok := a.tokens.Get(scope); ok && time.Now().Before(t.until) {
		return t.value, nil
	}
	answer := a.flights.DoChan(scope, func() (any, error) {
		if t, ok := a.tokens.Get(scope); ok && time.Now().Before(t.until) {
			return t.value, nil // another flight has just landed
		}
		// For all who wait, so not under the context of the one who came first.
		ctx, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), a.timeout, errTimeout)
		defer cancel()
		t, err := a.request(ctx, c, scope)
		if err == nil {
			a.tokens.Add(scope, t)
		}
		return t.value, err
	})
	select {
	case r := <-answer:
		if r.Err != nil {
			return "", r.Err
		}
		return r.Val.(string), nil
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
}

// maxLogins bounds how many logins are tried for one token: one that is no
// longer good, the one in its place, and at ECR Public none at all.
const maxLogins = 3

// request asks the token service, and again where the login that it refuses can
// be replaced.
func (a *challenged) request(ctx context.Context, c challenge, scope string) (bearerToken, error) {
	for tries := 1; ; tries++ {
		l, err := a.logins.login(ctx)
		if err != nil {
			return bearerToken{}, err
		}
		if l.bearer != "" {
			a.named.Store(new(true))
			return bearerToken{l.bearer, time.Now().Add(defaultTokenLife)}, nil
		}
		resp, err := a.exchange(ctx, c, scope, l)
		if err != nil {
			return bearerToken{}, err
		}
		if resp.StatusCode == http.StatusOK {
			defer resp.Body.Close()
			a.named.Store(new(l != login{}))
			life := defaultTokenLife
			if scope == scopeECRPublic {
				life = publicBearerLife
			}
			return readToken(resp.Body, life)
		}
		answer := errorFrom(resp)
		switch {
		case suspicious(resp) && l != (login{}) && a.logins.refused(l) && tries < maxLogins:
			continue
		case errors.Is(answer, fs.ErrNotExist): // the service, not what a token is wanted for
			return bearerToken{}, &credentialsError{"request a token", answer}
		}
		return bearerToken{}, fmt.Errorf("request a token: %w", answer)
	}
}

// exchange asks for a token for pulls, with a login or none.
func (a *challenged) exchange(ctx context.Context, c challenge, scope string, l login) (*http.Response, error) {
	u, err := url.Parse(c.params["realm"])
	if err != nil {
		return nil, errRealm
	}
	params := make(url.Values)
	if scope != "" {
		params.Set("scope", scope)
	}
	if s := c.params["service"]; s != "" {
		params.Set("service", s)
	}
	req, err := tokenRequest(ctx, u, params, l)
	if err != nil {
		return nil, err
	}
	req.Header.Set("User-Agent", "larder")
	req, call := a.calls.begin(req, toTokens)
	resp, err := a.transport.RoundTrip(req)
	call.end(resp, err)
	if err != nil {
		logRefusal(a.log, err)
		return nil, fmt.Errorf("request a token from %s: %w", origin(u), err)
	}
	return resp, nil
}

// readToken reads the token service's answer; life is that of a token of which it
// does not say.
func readToken(r io.Reader, life time.Duration) (bearerToken, error) {
	var answer struct {
		Token       string `json:"token"`
		AccessToken string `json:"access_token"`
		ExpiresIn   int    `json:"expires_in"`
	}
	if err := json.NewDecoder(io.LimitReader(r, maxTokenAnswer)).Decode(&answer); err != nil {
		return bearerToken{}, fmt.Errorf("read the token service's answer: %w", err)
	}
	if answer.Token == "" {
		answer.Token = answer.AccessToken
	}
	if answer.Token == "" {
		return bearerToken{}, &credentialsError{"read the token service's answer", errNoToken}
	}
	if answer.ExpiresIn > 0 {
		life = time.Duration(answer.ExpiresIn) * time.Second
	}
	return bearerToken{answer.Token, time.Now().Add(life - life/10)}, nil
}
