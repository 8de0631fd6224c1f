package auth

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/sync/singleflight"

	"github.com/larder-registry/larder/upstream/guard"
	"github.com/larder-registry/larder/upstream/redact"
	"github.com/larder-registry/larder/upstream/reply"
)

// tokenService gets bearer tokens from the service that a challenge names, and
// keeps them for their life. It is safe for concurrent use.
type tokenService struct {
	logins    Logins
	realms    realms
	transport http.RoundTripper
	timeout   time.Duration

	flights singleflight.Group
	kept    *lru.Cache[tokenKey, bearerToken]
	named   atomic.Pointer[bool] // whether the latest token is for a login; nil before the first
}

// tokenKey tells tokens apart. Two services of a registry, such as the one that it had
// before it moved, issue different tokens for one scope.
type tokenKey struct{ realm, service, scope string }

// key returns the key of a token for pulls from a repository.
func (c challenge) key(repository string) tokenKey {
	return tokenKey{c.params["realm"], c.params["service"], c.scope(repository)}
}

type bearerToken struct {
	value   string
	asked   time.Time // when its service was asked
	expires time.Time
}

const (
	// maxScopes bounds the tokens that are kept. Registries have one for each
	// repository.
	maxScopes = 1024
	// maxTokenAnswer bounds a token service's answer, in bytes.
	maxTokenAnswer = 1 << 20
	// defaultTokenLife is the life of a token by an answer without expires_in, as
	// the token specification says.
	defaultTokenLife = time.Minute
	// publicTokenLife is the life of ECR Public's tokens. Its answers have none.
	publicTokenLife = time.Hour
	// maxLogins bounds how many logins are tried for one token: one that expired,
	// the one in its place, and an anonymous one at ECR Public.
	maxLogins = 3
	// maxTokenHops bounds the redirects of a request for a token. One is usual, to
	// another path or to HTTPS.
	maxTokenHops = 3
)

func newTokenService(opts Options) *tokenService {
	kept, _ := lru.New[tokenKey, bearerToken](maxScopes) // fails only for a size that is not positive
	return &tokenService{logins: opts.Logins, realms: opts.realms(), transport: opts.Transport, timeout: opts.Timeout, kept: kept}
}

// token returns a token for pulls from a repository. Concurrent callers share one
// request to the service, which ctx does not end.
func (s *tokenService) token(ctx context.Context, c challenge, repository string) (string, error) {
	key, since := c.key(repository), sinceOf(ctx)
	if t, ok := s.fresh(key, since); ok {
		return t.value, nil
	}
	flight := fmt.Sprintf("%q", key)
	if !since.IsZero() {
		flight += since.String() // not one that was asked before
	}
	got := s.flights.DoChan(flight, func() (any, error) {
		if t, ok := s.fresh(key, since); ok {
			return t.value, nil // a request that has just ended brought it
		}
		ctx, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), s.timeout, reply.ErrTimeout)
		defer cancel()
		asked := time.Now()
		t, err := s.request(ctx, c, key.scope)
		if err == nil {
			t.asked = asked
			s.kept.Add(key, t)
		}
		return t.value, err
	})
	select {
	case r := <-got:
		if r.Err != nil {
			return "", r.Err
		}
		return r.Val.(string), nil
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
}

// fresh returns a token that was asked for since a time and has not expired.
func (s *tokenService) fresh(key tokenKey, since time.Time) (bearerToken, bool) {
	t, ok := s.kept.Get(key)
	return t, ok && !t.asked.Before(since) && time.Now().Before(t.expires)
}

// drop forgets a token, unless another one has taken its place.
func (s *tokenService) drop(key tokenKey, value string) {
	if t, ok := s.kept.Peek(key); ok && t.value == value {
		s.kept.Remove(key)
	}
}

// anonymous reports whether the latest token was got without a login; known is
// false before the first token.
func (s *tokenService) anonymous() (known, anonymous bool) {
	named := s.named.Load()
	return named != nil, named != nil && !*named
}

// expires returns when the last token of a challenge's service expires.
func (s *tokenService) expires(c challenge) (latest time.Time) {
	of := c.key("")
	for _, key := range s.kept.Keys() {
		t, _ := s.kept.Peek(key)
		if key.realm == of.realm && key.service == of.service && t.expires.After(latest) {
			latest = t.expires
		}
	}
	return latest
}

func (s *tokenService) expiresFor(key tokenKey) time.Time {
	t, _ := s.kept.Peek(key)
	return t.expires
}

// request asks the service, and again if the login that it refuses can be
// replaced.
func (s *tokenService) request(ctx context.Context, c challenge, scope string) (bearerToken, error) {
	for tries := 1; ; tries++ {
		l, err := s.logins.Login(ctx)
		if err != nil {
			return bearerToken{}, err
		}
		if l.Bearer != "" {
			s.named.Store(new(true))
			return bearerToken{value: l.Bearer, expires: time.Now().Add(defaultTokenLife)}, nil
		}
		resp, err := s.exchange(ctx, c, scope, l)
		if err != nil {
			return bearerToken{}, err
		}
		if resp.StatusCode == http.StatusOK {
			defer resp.Body.Close()
			s.named.Store(new(l != Login{}))
			life := defaultTokenLife
			if scope == scopeECRPublic {
				life = publicTokenLife
			}
			return readToken(resp.Body, life)
		}
		refusal := reply.Read(resp)
		switch {
		case IsRefusal(resp) && l != (Login{}) && s.logins.Refused(l) && tries < maxLogins:
			continue
		case errors.Is(refusal, fs.ErrNotExist): // it is the service that does not exist, not the image
			return bearerToken{}, NewError("request a token", refusal)
		}
		return bearerToken{}, fmt.Errorf("request a token: %w", refusal)
	}
}

// exchange sends one request for a token for pulls, and follows redirects with the
// same request.
func (s *tokenService) exchange(ctx context.Context, c challenge, scope string, l Login) (*http.Response, error) {
	to, err := s.realms.parse(c)
	if err == nil {
		err = s.realms.check(to, l)
	}
	if err != nil {
		return nil, err
	}
	params := make(url.Values)
	if scope != "" {
		params.Set("scope", scope)
	}
	if name := c.params["service"]; name != "" {
		params.Set("service", name)
	}
	for hops := 0; ; hops++ {
		req, err := tokenRequest(ctx, to, params, l)
		if err != nil {
			return nil, fmt.Errorf("request a token from %s: %w", guard.Origin(to), errRealm)
		}
		resp, err := s.transport.RoundTrip(req)
		if err != nil {
			return nil, fmt.Errorf("request a token from %s: %w", guard.Origin(to), err)
		}
		if !reply.IsRedirect(resp) {
			return resp, nil
		}
		resp.Body.Close()
		if hops == maxTokenHops {
			return nil, fmt.Errorf("request a token from %s: more than %d redirects", guard.Origin(to), maxTokenHops)
		}
		next, err := resp.Location()
		if err != nil {
			return nil, fmt.Errorf("request a token from %s: it redirects to something that is not a URL", guard.Origin(to)) // which the error would quote
		}
		if err := s.realms.checkRedirect(to, next, l); err != nil {
			return nil, err
		}
		to = next
	}
}

// tokenRequest makes a request for a token: by GET with basic or no
// authentication, or by POST with a refresh token (distribution's pages "Token
// Authentication" and "OAuth2 Token Authentication").
func tokenRequest(ctx context.Context, service *url.URL, params url.Values, l Login) (*http.Request, error) {
	req, err := newTokenRequest(ctx, service, params, l)
	if err == nil {
		req.Header.Set("User-Agent", "larder")
		req.Header.Set("Accept-Encoding", "identity") // the answer is read as it comes
	}
	return req, err
}

func newTokenRequest(ctx context.Context, service *url.URL, params url.Values, l Login) (*http.Request, error) {
	if l.Refresh == "" {
		u := *service
		q := u.Query()
		for key := range params {
			q.Set(key, params.Get(key))
		}
		u.RawQuery = q.Encode()
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
		if err == nil && l.Username != "" {
			req.SetBasicAuth(l.Username, l.Password) // RFC 7617
		}
		return req, err
	}
	form := maps.Clone(params)
	form.Set("grant_type", "refresh_token")
	form.Set("client_id", "larder")
	form.Set("refresh_token", l.Refresh)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, service.String(), strings.NewReader(form.Encode()))
	if err == nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	return req, err
}

// maxTokenLife bounds the life of a token that its service tells. One that is refused before
// is renewed anyway.
const maxTokenLife = 24 * time.Hour

// readToken reads the service's answer. life is the life of a token if the answer
// has none. The last tenth of it is not used, as a request takes its time.
func readToken(r io.Reader, life time.Duration) (bearerToken, error) {
	var doc struct {
		Token       string `json:"token"`
		AccessToken string `json:"access_token"`
		ExpiresIn   int    `json:"expires_in"`
	}
	if err := json.NewDecoder(io.LimitReader(r, maxTokenAnswer)).Decode(&doc); err != nil {
		return bearerToken{}, fmt.Errorf("read the token service's answer: %w", redact.JSON(err))
	}
	if doc.Token == "" {
		doc.Token = doc.AccessToken
	}
	if doc.Token == "" {
		return bearerToken{}, NewError("read the token service's answer", ErrNoToken)
	}
	if doc.ExpiresIn > 0 {
		life = time.Duration(min(doc.ExpiresIn, int(maxTokenLife/time.Second))) * time.Second
	}
	return bearerToken{value: doc.Token, expires: time.Now().Add(life - life/10)}, nil
}
