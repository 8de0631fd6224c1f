package upstream

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// tokenRegistry is a registry and its token service, at one address.
type tokenRegistry struct {
	answer  func(token string) string // of the token service; the usual one if nil
	arrived func(string)              // called for each request with a token, if set

	mu     sync.Mutex // guards what follows
	scopes []string   // that tokens were issued for
	auths  []string   // Authorization headers that the token service got
	good   map[string]string
}

func startTokenRegistry(t *testing.T, cfg Config) (*tokenRegistry, *Registry, *logBuffer) {
	t.Helper()
	s := &tokenRegistry{good: make(map[string]string)}
	r, log := startPlain(t, cfg, s.ServeHTTP)
	return s, r, log
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
		w.Header().Set("WWW-Authenticate", `Bearer realm="http://`+r.Host+`/token?kept=1",service="the registry"`)
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

// pull asks for the beginning of a blob in a repository.
func pull(t *testing.T, r *Registry, repository string) error {
	t.Helper()
	body, _, _, err := r.Blob(t.Context(), repository, someBlob, 0, 100, false)
	if err == nil {
		readAll(t, body)
	}
	return err
}

func TestTokenIsKeptForItsRepository(t *testing.T) {
	s, r, _ := startTokenRegistry(t, Config{})
	for range 3 {
		for _, repository := range []string{"a", "b/c"} {
			if err := pull(t, r, repository); err != nil {
				t.Fatal(err)
			}
		}
	}
	s.wantScopes(t, "repository:a:pull", "repository:b/c:pull")
	if diff := cmp.Diff([]string{"", ""}, s.auths); diff != "" {
		t.Errorf("credentials at the token service (-want +got):\n%s", diff)
	}
}

func TestTokenServiceGetsThePassword(t *testing.T) {
	s, r, _ := startTokenRegistry(t, Config{Username: "me", PasswordFile: passwordFile(t, "hunter2")})
	if err := pull(t, r, "a"); err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.SetBasicAuth("me", "hunter2")
	if diff := cmp.Diff([]string{req.Header.Get("Authorization")}, s.auths); diff != "" {
		t.Errorf("credentials at the token service (-want +got):\n%s", diff)
	}
}

func TestRevokedTokenIsReplacedOnceForAll(t *testing.T) {
	const clients = 16
	s, r, _ := startTokenRegistry(t, Config{})
	if err := pull(t, r, "a"); err != nil {
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
			if err := pull(t, r, "a"); err != nil {
				t.Error(err)
			}
		})
	}
	done.Wait()
	s.wantScopes(t, "repository:a:pull", "repository:a:pull")
}

func TestRefusalOfANewBearerTokenIsFinal(t *testing.T) {
	s, r, _ := startTokenRegistry(t, Config{})
	s.arrived = func(string) { s.revoke() }
	if err := pull(t, r, "a"); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("got %v, want %v", err, fs.ErrPermission)
	}
	s.wantScopes(t, "repository:a:pull")
	if err := pull(t, r, "a"); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("got %v, want %v", err, fs.ErrPermission)
	}
	s.wantScopes(t, "repository:a:pull", "repository:a:pull")
}

// The first question to a registry is challenged, so that the refusal is that of
// the second one.
func TestRefusedHEADHasTheRegistrysWords(t *testing.T) {
	r, _ := startPlain(t, Config{}, func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/token":
			_, _ = w.Write([]byte(`{"token":"good"}`))
		case r.Header.Get("Authorization") == "":
			w.Header().Set("WWW-Authenticate", `Bearer realm="http://`+r.Host+`/token"`)
			w.WriteHeader(http.StatusUnauthorized)
		default:
			http.Error(w, `{"errors":[{"code":"DENIED","message":"the plan has ended"}]}`, http.StatusForbidden)
		}
	})
	_, _, err := r.Manifest(t.Context(), repo, "v1", true)
	if !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), "the plan has ended") {
		t.Errorf("got %v, want why it is denied", err)
	}
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
			got, err := readToken(strings.NewReader(body), defaultTokenLife)
			if err != nil || got.value != "x" || time.Until(got.until) != life {
				t.Errorf("%s: %q for %v, %v; want it for %v", body, got.value, time.Until(got.until), err, life)
			}
		})
	}
}

func TestTokenThatRanOutIsNotSent(t *testing.T) {
	s, r, _ := startTokenRegistry(t, Config{})
	if err := pull(t, r, "a"); err != nil {
		t.Fatal(err)
	}
	tokens := r.auth.(*challenged).tokens
	tokens.Add("repository:a:pull", bearerToken{"token-1", time.Now()})
	s.arrived = func(token string) {
		if token == "token-1" {
			t.Error("the old token was sent")
		}
	}
	if err := pull(t, r, "a"); err != nil {
		t.Fatal(err)
	}
	s.wantScopes(t, "repository:a:pull", "repository:a:pull")
}

func TestBrokenTokenAnswerIsAnError(t *testing.T) {
	for name, body := range map[string]string{
		"empty":        "",
		"not JSON":     "<html>",
		"no token":     `{"expires_in":300}`,
		"empty token":  `{"token":""}`,
		"cut":          `{"token":"x`,
		"a line break": `{"token":"x\r\nX-Evil: 1"}`,
		"huge":         `{"token":"` + strings.Repeat("x", maxTokenAnswer) + `"}`,
	} {
		t.Run(name, func(t *testing.T) {
			s, r, _ := startTokenRegistry(t, Config{})
			s.answer = func(string) string { return body }
			err := pull(t, r, "a")
			if err == nil {
				t.Fatal("pulled without a token")
			}
			if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) || len(err.Error()) > 500 {
				t.Errorf("got %.500v", err)
			}
		})
	}
}

func TestTokenServiceThatRefusesIsTheUpstreamsRefusal(t *testing.T) {
	var status int
	r, _ := startPlain(t, Config{}, func(w http.ResponseWriter, req *http.Request) {
		if req.URL.Path == "/token" {
			w.Header().Set("Retry-After", "7")
			w.WriteHeader(status)
			return
		}
		w.Header().Set("WWW-Authenticate", `Bearer realm="http://`+req.Host+`/token"`)
		w.WriteHeader(http.StatusUnauthorized)
	})
	status = http.StatusForbidden
	if err := pull(t, r, "a"); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("403: %v, want %v", err, fs.ErrPermission)
	}
	status = http.StatusTooManyRequests
	var answer *Error
	if err := pull(t, r, "a"); !errors.As(err, &answer) || !answer.Throttled() || answer.RetryAfter() != 7*time.Second {
		t.Errorf("429: %v, want it throttled for 7 s", err)
	}
	status = http.StatusNotFound
	wantNoCredentials(t, pull(t, r, "a"), "404")
}

// realms are what a challenge may name, and whether a registry at an endpoint
// may name it.
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
	trs := newTransports()
	t.Cleanup(trs.close)
	for _, test := range realms {
		endpoint := mustURL(t, test.endpoint)
		tr := trs.get(classifyHost(endpoint.Hostname()))
		a := newChallenged(endpoint, secret{}, tr, time.Second, new(logBuffer).logger())
		if err := a.checkRealm(test.realm); (err == nil) != test.good {
			t.Errorf("%s names %q: %v; good must be %t", test.endpoint, test.realm, err, test.good)
		}
	}
}

func TestForeignRealmIsNotDialledAndGetsNoPassword(t *testing.T) {
	bell := newDoorbell(t)
	for _, realm := range []string{
		"http://127.0.0.1:" + bell.port(t) + "/token",
		"http://rebound.registry.test:" + bell.port(t) + "/token",
		"http://evil.example/token",
	} {
		t.Run(realm, func(t *testing.T) {
			s := secret{"me", passwordFile(t, "hunter2")}
			r, log := startElsewhere(t, s, func(w http.ResponseWriter, req *http.Request) {
				if req.Header.Get("Authorization") != "" {
					t.Error("the registry was sent credentials that it did not ask for")
				}
				w.Header().Set("WWW-Authenticate", `Bearer realm="`+realm+`"`)
				w.WriteHeader(http.StatusUnauthorized)
			})
			r.transport.guard.dialer.Resolver = resolver(t, [4]byte{127, 0, 0, 1})
			dial := r.transport.DialContext
			r.transport.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
				if addr == "evil.example:80" { // a public address, as far as the guard can tell
					return (&net.Dialer{}).DialContext(ctx, network, bell.Addr().String())
				}
				return dial(ctx, network, addr)
			}
			for range 2 {
				var refused *refusedError
				if err := pull(t, r, "a"); !errors.As(err, &refused) {
					t.Errorf("got %v, want a refusal", err)
				}
			}
			log.wantLines(t, "level=WARN", 2)
			if strings.Contains(log.String(), "hunter2") {
				t.Errorf("the password is logged:\n%s", log)
			}
		})
	}
	bell.wantNobody(t)
}

func TestOneWhoLeavesDoesNotEndTheTokenRequestOfOthers(t *testing.T) {
	asked, answer := make(chan struct{}), make(chan struct{})
	s, r, _ := startTokenRegistry(t, Config{})
	s.answer = func(token string) string {
		close(asked)
		<-answer
		return fmt.Sprintf(`{"token":%q}`, token)
	}
	a := r.auth.(*challenged)
	c := challenge{"bearer", map[string]string{"realm": r.endpoint.String() + "/token?kept=1", "service": "the registry"}}
	ctx, leave := context.WithCancelCause(t.Context())
	gone := errors.New("the client hung up")
	ended := make(chan error)
	go func() {
		_, err := a.token(ctx, c, "a")
		ended <- err
	}()
	<-asked
	leave(gone)
	if err := <-ended; !errors.Is(err, gone) {
		t.Errorf("the one who left: %v, want %v", err, gone)
	}
	close(answer)
	if token, err := a.token(t.Context(), c, "a"); err != nil || token != "token-1" {
		t.Errorf("the next: %q, %v", token, err)
	}
	s.wantScopes(t, "repository:a:pull")
}
