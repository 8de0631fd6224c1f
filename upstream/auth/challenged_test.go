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
	"github.com/larder-registry/larder/upstream/guard"
	"github.com/larder-registry/larder/upstream/reply"
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
	wantNoCredentials(t, c.pull(t.Context(), "a"), file)
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
	wantNoCredentials(t, c.pull(t.Context(), "a"), "404")
}

// realms are token services, and whether a registry at an endpoint may name them.
var realms = []struct {
	endpoint, realm string
	good            bool
}{
	{"https://registry-1.docker.io", "https://auth.docker.io/token", true},
	{"https://registry.example.co.uk", "https://auth.example.co.uk/token", true},
	{"https://ghcr.io", "https://ghcr.io/token", true},
	{"https://registry.test:5000", "https://registry.test/token", true},
	{"http://registry.test", "https://auth.registry.test/token", true},
	{"http://registry.example.com", "http://auth.example.com/token", true},
	{"https://10.0.0.1", "https://10.0.0.1:8443/token", true},
	{"https://registry-1.docker.io", "https://auth.docker.com/token", false},
	{"https://registry-1.docker.io", "https://docker.io.evil.example/token", false},
	{"https://registry-1.docker.io", "https://auth.docker.io@evil.example/token", false},
	{"https://registry-1.docker.io", "https://me:pw@auth.docker.io/token", false},
	{"https://registry-1.docker.io", "http://auth.docker.io/token", false},
	{"https://registry-1.docker.io", "ftp://auth.docker.io/token", false},
	{"https://registry-1.docker.io", "//auth.docker.io/token", false},
	{"https://registry-1.docker.io", "/token", false},
	{"https://registry-1.docker.io", "", false},
	{"https://registry-1.docker.io", "https://%zz/token", false},
	{"https://registry-1.docker.io", "https://169.254.169.254/token", false},
	{"https://registry-1.docker.io", "https://localhost/token", false},
	{"https://registry-1.docker.io", "https://io/token", false},
	{"https://registry.example.co.uk", "https://evil.co.uk/token", false},
	{"https://mine.s3.amazonaws.com", "https://evil.s3.amazonaws.com/token", false},
	{"https://mine.github.io", "https://evil.github.io/token", false},
	{"https://10.0.0.1", "https://10.9.0.1/token", false},
	{"https://[fd12::1]", "https://[fd12::2]/token", false},
	{"https://registry", "https://evil/token", false},
	{"https://registry", "https://auth.registry/token", false},
}

func TestRealmMustBeTheRegistrysOwn(t *testing.T) {
	for _, test := range realms {
		c := newClientAt(test.endpoint, auth.Password{Username: "me", File: writeFile(t, "hunter2")}, func(w http.ResponseWriter, r *http.Request) {
			switch {
			case r.URL.Path == "/token":
				_, _ = w.Write([]byte(`{"token":"good"}`))
			case r.Header.Get("Authorization") == "Bearer good":
				content(w, r)
			default:
				w.Header().Set("WWW-Authenticate", `Bearer realm="`+test.realm+`"`)
				w.WriteHeader(http.StatusUnauthorized)
			}
		})
		err := c.pull(t.Context(), "a")
		if (err == nil) != test.good {
			t.Errorf("%s names %q: %v; good must be %t", test.endpoint, test.realm, err, test.good)
		}
		var refused *guard.RefusedError
		if err != nil && !errors.As(err, &refused) && !strings.Contains(err.Error(), "the realm is not a URL") {
			t.Errorf("%s names %q: %v, want a refusal", test.endpoint, test.realm, err)
		}
		if strings.Contains(c.log.String(), "hunter2") || strings.Contains(c.log.String(), "pw") {
			t.Errorf("a password is logged:\n%s", c.log)
		}
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
