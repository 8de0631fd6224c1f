package auth_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/larder-registry/larder/upstream/auth"
	"github.com/larder-registry/larder/upstream/reply"
	"github.com/larder-registry/larder/upstream/upstreamtest"
)

func TestBasicAuthenticationFollowsTheChallenge(t *testing.T) {
	var bare int
	registry := requireBasic("me", "hunter2", content)
	c := newClient(auth.Password{Username: "me", File: writeFile(t, "hunter2\n")}, func(w http.ResponseWriter, req *http.Request) {
		if req.Header.Get("Authorization") == "" {
			bare++
		}
		registry(w, req)
	})
	for range 3 {
		if err := c.pull(t.Context(), "a"); err != nil {
			t.Fatal(err)
		}
	}
	if bare != 1 {
		t.Errorf("%d requests came without credentials, want the first", bare)
	}
	if c.Scheme() != "basic" {
		t.Errorf("the scheme is %q", c.Scheme())
	}
}

func TestReplacedPasswordFileIsReadAtTheNextUse(t *testing.T) {
	file := writeFile(t, "old")
	c := newClient(auth.Password{Username: "me", File: file}, requireBasic("me", "new", content))
	wantPermission(t, c.pull(t.Context(), "a"))
	rewriteFile(t, file, "new\r\n")
	if err := c.pull(t.Context(), "a"); err != nil {
		t.Errorf("with the new password: %v", err)
	}
}

func TestMissingPasswordFileIsAnErrorOfTheCredentials(t *testing.T) {
	file := filepath.Join(t.TempDir(), "none")
	c := newClient(auth.Password{Username: "me", File: file}, requireBasic("me", "hunter2", content))
	upstreamtest.WantNoCredentials(t, c.pull(t.Context(), "a"), file)
}

func TestRegistryWithoutAChallengeIsSentNoCredentials(t *testing.T) {
	c := newClient(auth.Password{Username: "me", File: writeFile(t, "hunter2")}, func(w http.ResponseWriter, req *http.Request) {
		if got := req.Header.Get("Authorization"); got != "" {
			t.Errorf("sent Authorization %q", got)
		}
		content(w, req)
	})
	if err := c.pull(t.Context(), "a"); err != nil {
		t.Error(err)
	}
}

func TestBasicChallengeWithoutALoginIsADenial(t *testing.T) {
	var asked int
	registry := requireBasic("me", "hunter2", content)
	c := newClient(auth.Password{}, func(w http.ResponseWriter, req *http.Request) {
		asked++
		registry(w, req)
	})
	wantPermission(t, c.pull(t.Context(), "a"))
	if asked != 1 {
		t.Errorf("asked %d times, want once", asked)
	}
}

// tokenRegistry is a registry and its token service, at one address.
type tokenRegistry struct {
	answer  func(token string) string // of the token service; the usual one if nil
	arrived func(string)              // called for each request with a token, if set

	mu     sync.Mutex // guards what follows
	scopes []string   // that tokens were issued for
	auths  []string   // Authorization headers that the token service got
	good   map[string]string
}

func newTokenRegistry(logins auth.Logins) (*tokenRegistry, *client) {
	s := &tokenRegistry{good: make(map[string]string)}
	return s, newClient(logins, s.ServeHTTP)
}

func (s *tokenRegistry) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/token" {
		s.issue(w, r)
		return
	}
	token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if ok && s.arrived != nil {
		s.arrived(token)
	}
	s.mu.Lock()
	scope := s.good[token]
	s.mu.Unlock()
	if !ok || !strings.HasPrefix(r.URL.Path, "/v2/"+scope+"/") {
		w.Header().Set("WWW-Authenticate", `Bearer realm="https://`+r.Host+`/token?kept=1",service="the registry"`)
		http.Error(w, `{"errors":[{"code":"UNAUTHORIZED"}]}`, http.StatusUnauthorized)
		return
	}
	content(w, r)
}

func (s *tokenRegistry) issue(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	scope := r.URL.Query().Get("scope")
	s.scopes = append(s.scopes, scope)
	s.auths = append(s.auths, r.Header.Get("Authorization"))
	if r.URL.Query().Get("service") != "the registry" || r.URL.Query().Get("kept") != "1" {
		http.Error(w, "the question is not the challenge's", http.StatusBadRequest)
		return
	}
	token := fmt.Sprintf("token-%d", len(s.scopes))
	s.good[token] = strings.TrimSuffix(strings.TrimPrefix(scope, "repository:"), ":pull")
	body := fmt.Sprintf(`{"token":%q,"expires_in":300}`, token)
	if s.answer != nil {
		body = s.answer(token)
	}
	_, _ = w.Write([]byte(body))
}

// revoke makes every token so far a bad one.
func (s *tokenRegistry) revoke() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.good)
}

func (s *tokenRegistry) wantScopes(t *testing.T, want ...string) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if diff := cmp.Diff(want, s.scopes); diff != "" {
		t.Errorf("scopes of the tokens issued (-want +got):\n%s", diff)
	}
}

func TestTokenIsKeptForItsRepository(t *testing.T) {
	s, c := newTokenRegistry(auth.Password{})
	for range 3 {
		for _, repository := range []string{"a", "b/c"} {
			if err := c.pull(t.Context(), repository); err != nil {
				t.Fatal(err)
			}
		}
	}
	s.wantScopes(t, "repository:a:pull", "repository:b/c:pull")
	if diff := cmp.Diff([]string{"", ""}, s.auths); diff != "" {
		t.Errorf("credentials at the token service (-want +got):\n%s", diff)
	}
	if !c.Anonymous(t.Context()) {
		t.Error("a token without a login is not anonymous")
	}
}

func TestTokenServiceGetsThePassword(t *testing.T) {
	s, c := newTokenRegistry(auth.Password{Username: "me", File: writeFile(t, "hunter2")})
	if err := c.pull(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"Basic " + basicAuth("me", "hunter2")}, s.auths); diff != "" {
		t.Errorf("credentials at the token service (-want +got):\n%s", diff)
	}
	if c.Anonymous(t.Context()) {
		t.Error("a token for a login is anonymous")
	}
}

func TestRevokedTokenIsReplacedOnceForAll(t *testing.T) {
	const clients = 16
	s, c := newTokenRegistry(auth.Password{})
	if err := c.pull(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	s.revoke()
	var arrived, done sync.WaitGroup
	arrived.Add(clients)
	s.arrived = func(token string) {
		if token == "token-1" {
			arrived.Done()
			arrived.Wait() // so that all hold the old token
		}
	}
	for range clients {
		done.Go(func() {
			if err := c.pull(t.Context(), "a"); err != nil {
				t.Error(err)
			}
		})
	}
	done.Wait()
	s.wantScopes(t, "repository:a:pull", "repository:a:pull")
}

func TestRefusalOfANewBearerTokenIsFinal(t *testing.T) {
	s, c := newTokenRegistry(auth.Password{})
	s.arrived = func(string) { s.revoke() }
	wantPermission(t, c.pull(t.Context(), "a"))
	s.wantScopes(t, "repository:a:pull")
	wantPermission(t, c.pull(t.Context(), "a"))
	s.wantScopes(t, "repository:a:pull", "repository:a:pull")
}

func TestTokenIsUsedForItsLife(t *testing.T) {
	for body, life := range map[string]time.Duration{
		`{"token":"x","expires_in":300}`:       270 * time.Second,
		`{"access_token":"x","expires_in":60}`: 54 * time.Second,
		`{"token":"x"}`:                        54 * time.Second,
		`{"token":"x","expires_in":0}`:         54 * time.Second,
		`{"token":"x","expires_in":-1}`:        54 * time.Second,
		`{"token":"x","access_token":"y"}`:     54 * time.Second,
	} {
		synctest.Test(t, func(t *testing.T) {
			s, c := newTokenRegistry(auth.Password{})
			s.answer = func(string) string {
				s.good["x"] = "a"
				return body
			}
			must := func(tokens int) {
				t.Helper()
				if err := c.pull(t.Context(), "a"); err != nil || len(s.scopes) != tokens {
					t.Fatalf("%s: %v, %d tokens, want %d", body, err, len(s.scopes), tokens)
				}
			}
			must(1)
			if left := time.Until(c.TokenExpires("a")); left != life || !c.Expires().Equal(c.TokenExpires("a")) {
				t.Errorf("%s: it expires in %v, want %v", body, left, life)
			}
			pass(life - time.Second)
			must(1)
			pass(time.Second)
			must(2)
		})
	}
}

func TestBrokenTokenAnswerIsAnError(t *testing.T) {
	for name, body := range map[string]string{
		"empty":       "",
		"not JSON":    "<html>",
		"no token":    `{"expires_in":300}`,
		"empty token": `{"token":""}`,
		"cut":         `{"token":"x`,
		"huge":        `{"token":"` + strings.Repeat("x", 1<<20) + `"}`,
	} {
		t.Run(name, func(t *testing.T) {
			s, c := newTokenRegistry(auth.Password{})
			s.answer = func(string) string { return body }
			err := c.pull(t.Context(), "a")
			if err == nil {
				t.Fatal("pulled without a token")
			}
			if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) || len(err.Error()) > 500 {
				t.Errorf("got %.500v", err)
			}
		})
	}
}

func TestRefusalByTheTokenServiceIsTheUpstreamsRefusal(t *testing.T) {
	var status int
	c := newClient(auth.Password{}, func(w http.ResponseWriter, req *http.Request) {
		if req.URL.Path == "/token" {
			w.Header().Set("Retry-After", "7")
			w.WriteHeader(status)
			return
		}
		w.Header().Set("WWW-Authenticate", `Bearer realm="https://registry.test/token"`)
		w.WriteHeader(http.StatusUnauthorized)
	})
	status = http.StatusForbidden
	wantPermission(t, c.pull(t.Context(), "a"))
	status = http.StatusTooManyRequests
	var refusal *reply.Error
	if err := c.pull(t.Context(), "a"); !errors.As(err, &refusal) || !refusal.Throttled() || refusal.RetryAfter() != 7*time.Second {
		t.Errorf("429: %v, want it throttled for 7 s", err)
	}
	status = http.StatusNotFound
	upstreamtest.WantNoCredentials(t, c.pull(t.Context(), "a"), "404")
}

func TestUsableChallengeIsTakenWhereverItStands(t *testing.T) {
	const bearer, foreign = `Bearer realm="https://registry.test/token"`, `Bearer realm="https://evil.example/token"`
	login := auth.Password{Username: "me", File: writeFile(t, "hunter2")}
	for name, test := range map[string]struct {
		headers []string
		logins  auth.Logins
		scheme  string
	}{
		"basic first, no login":          {[]string{`Basic realm="x"`, bearer}, auth.Password{}, "bearer"},
		"basic first in a line":          {[]string{`Basic realm="x", ` + bearer}, auth.Password{}, "bearer"},
		"basic first, a login":           {[]string{`Basic realm="x"`, bearer}, login, "bearer"},
		"a foreign realm, then basic":    {[]string{foreign + `, Basic realm="x"`}, login, "basic"},
		"a foreign realm, then our own":  {[]string{foreign, bearer}, login, "bearer"},
		"an unknown scheme, then bearer": {[]string{`Negotiate`, bearer}, auth.Password{}, "bearer"},
	} {
		t.Run(name, func(t *testing.T) {
			basic := requireBasic("me", "hunter2", content)
			c := newClient(test.logins, func(w http.ResponseWriter, r *http.Request) {
				_, _, isBasic := r.BasicAuth()
				switch {
				case r.URL.Path == "/token":
					_, _ = w.Write([]byte(`{"token":"good"}`))
				case r.Header.Get("Authorization") == "Bearer good":
					content(w, r)
				case isBasic:
					basic(w, r)
				default:
					w.Header()["Www-Authenticate"] = test.headers
					w.WriteHeader(http.StatusUnauthorized)
				}
			})
			if err := c.pull(t.Context(), "a"); err != nil || c.Scheme() != test.scheme {
				t.Errorf("%v, by %q; want %q", err, c.Scheme(), test.scheme)
			}
		})
	}
}

func TestCallerThatLeavesDoesNotEndTheTokenRequestOfOthers(t *testing.T) {
	asked, proceed := make(chan struct{}), make(chan struct{})
	s, c := newTokenRegistry(auth.Password{})
	s.answer = func(token string) string {
		close(asked)
		<-proceed
		return fmt.Sprintf(`{"token":%q}`, token)
	}
	ctx, leave := context.WithCancelCause(t.Context())
	gone := errors.New("the client hung up")
	ended := make(chan error)
	go func() { ended <- c.pull(ctx, "a") }()
	<-asked
	leave(gone)
	if err := <-ended; !errors.Is(err, gone) {
		t.Errorf("the caller that left: %v, want %v", err, gone)
	}
	close(proceed)
	if err := c.pull(t.Context(), "a"); err != nil {
		t.Errorf("the next: %v", err)
	}
	s.wantScopes(t, "repository:a:pull")
}

func TestRegistryThatRefusesEveryBearerTokenCostsFewOfThem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, c := newTokenRegistry(auth.Password{})
		s.arrived = func(string) { s.revoke() }
		for range 20 {
			wantPermission(t, c.pull(t.Context(), "a"))
		}
		if n := len(s.scopes); n != 2 {
			t.Errorf("%d tokens were asked for in 20 requests, want the first and one more", n)
		}
		for range 600 {
			pass(time.Second)
			wantPermission(t, c.pull(t.Context(), "a"))
		}
		if n := len(s.scopes); n < 10 || n > 25 {
			t.Errorf("%d tokens were asked for in ten minutes, want about one a minute in the end", n)
		}
	})
}

// The token of a service may be the same until it ends, as may that of a Docker configuration.
func TestRegistryThatRefusesTheSameBearerTokenAgainCostsFewRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var tokens, requests int
		c := newClient(auth.Password{}, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/token" {
				tokens++
				_, _ = w.Write([]byte(`{"token":"constant"}`))
				return
			}
			requests++
			w.Header().Set("WWW-Authenticate", `Bearer realm="https://registry.test/token",service="x"`)
			w.WriteHeader(http.StatusUnauthorized)
		})
		for range 20 {
			wantPermission(t, c.pull(t.Context(), "a"))
		}
		if tokens > 2 || requests > 22 {
			t.Errorf("20 pulls cost %d tokens and %d requests, want 2 and 22 at most", tokens, requests)
		}
	})
}

// A registry whose token service has moved refuses the old tokens. That of another
// repository must not be tried first.
func TestTokensOfAServiceThatHasMovedAreNotSent(t *testing.T) {
	realm := "/old"
	var refused []string
	c := newClient(auth.Password{}, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/old" || r.URL.Path == "/new" {
			_, _ = fmt.Fprintf(w, `{"token":"%s %s","expires_in":300}`, r.URL.Path, r.URL.Query().Get("scope"))
			return
		}
		token := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
		if strings.HasPrefix(token, realm+" ") {
			content(w, r)
			return
		}
		if token != "" {
			refused = append(refused, token)
		}
		w.Header().Set("WWW-Authenticate", `Bearer realm="https://registry.test`+realm+`",service="the registry"`)
		w.WriteHeader(http.StatusUnauthorized)
	})
	pull := func(repositories ...string) {
		t.Helper()
		for _, repository := range repositories {
			if err := c.pull(t.Context(), repository); err != nil {
				t.Fatal(err)
			}
		}
	}
	pull("a", "b")
	realm = "/new"
	pull("a")
	if !c.TokenExpires("b").IsZero() {
		t.Error("the old token counts as one of the new service")
	}
	pull("b", "a")
	if diff := cmp.Diff([]string{"/old repository:a:pull"}, refused); diff != "" {
		t.Errorf("tokens that the registry refused (-want +got):\n%s", diff)
	}
}

// Rights change while a token that tells them lives on. What is asked since a time is asked with a token
// that the service has issued since.
func TestTokenFromBeforeATimeIsNotUsed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		issued := 0
		c := newClient(auth.Given(auth.Login{Username: "me", Password: "hunter2"}), func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/token" {
				issued++
				fmt.Fprintf(w, `{"token":"t%d","expires_in":3600}`, issued)
				return
			}
			if r.Header.Get("Authorization") == "" {
				w.Header().Set("WWW-Authenticate", `Bearer realm="https://registry.test/token"`)
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
			content(w, r)
		})
		pull := func(since time.Time, want int) {
			t.Helper()
			ctx := auth.As(t.Context(), auth.Login{}, since)
			if err := c.pull(ctx, "a"); err != nil {
				t.Fatal(err)
			}
			if issued != want {
				t.Errorf("%d tokens, want %d", issued, want)
			}
		}
		start := time.Now()
		pull(time.Time{}, 1)
		pass(time.Minute)
		pull(start, 1)
		pull(start.Add(time.Second), 2)
		pull(start.Add(time.Second), 2)
		pull(time.Time{}, 2)
	})
}
