package auth_test

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/larder-registry/larder/upstream/auth"
	"github.com/larder-registry/larder/upstream/guard"
)

// reach is how far a registry may lead to a token service.
type reach int

const (
	never     reach = iota
	anonymous       // without a login
	own             // with the registry's login, too
)

// realms are token services, and how far a registry at an endpoint may lead there.
var realms = []struct {
	endpoint, realm string
	want            reach
}{
	{"https://registry-1.docker.io", "https://auth.docker.io/token", own},
	{"https://registry.example.co.uk", "https://auth.example.co.uk/token", own},
	{"https://ghcr.io", "https://ghcr.io/token", own},
	{"https://ghcr.io", "https://GHCR.io:443/token", own},
	{"https://registry.test:5000", "https://registry.test:5000/token", own},
	{"https://registry.example.com:5050", "https://registry.example.com/jwt/auth", own}, // GitLab's
	{"http://registry.example.com", "http://auth.example.com/token", own},
	{"https://mine.github.io", "https://auth.mine.github.io/token", own},
	{"https://registry.test:5000", "https://registry.test/token", anonymous},
	{"https://registry.example.com", "https://registry.example.com:8443/token", anonymous},
	{"https://registry.example.com", "https://auth.example.com:8443/token", anonymous},
	{"http://registry.test", "https://auth.registry.test/token", anonymous},
	{"https://10.0.0.1", "https://10.0.0.1:8443/token", anonymous},
	{"https://lscr.io", "https://ghcr.io/token", anonymous},
	{"https://registry-1.docker.io", "https://auth.docker.com/token", anonymous},
	{"https://registry-1.docker.io", "https://docker.io.evil.example/token", anonymous},
	{"https://registry-1.docker.io", "https://io/token", anonymous},
	{"https://registry.example.co.uk", "https://evil.co.uk/token", anonymous},
	{"https://mine.s3.amazonaws.com", "https://evil.s3.amazonaws.com/token", anonymous},
	{"https://mine.github.io", "https://evil.github.io/token", anonymous},
	{"https://registry.a.svc.cluster.local", "https://registry.b.svc.cluster.local/token", anonymous},
	{"https://registry.cluster.local", "https://evil.cluster.local/token", anonymous},
	{"https://registry.team.internal", "https://auth.team.internal/token", anonymous},
	{"https://10.0.0.1", "https://10.9.0.1/token", anonymous},
	{"https://[fd12::1]", "https://[fd12::2]/token", anonymous},
	{"https://registry", "https://evil/token", anonymous},
	{"https://registry", "https://auth.registry/token", anonymous},
	{"https://registry-1.docker.io", "https://auth.docker.io@evil.example/token", never},
	{"https://registry-1.docker.io", "https://me:pw@auth.docker.io/token", never},
	{"https://registry-1.docker.io", "http://auth.docker.io/token", never},
	{"https://registry-1.docker.io", "ftp://auth.docker.io/token", never},
	{"https://registry-1.docker.io", "//auth.docker.io/token", never},
	{"https://registry-1.docker.io", "/token", never},
	{"https://registry-1.docker.io", "", never},
	{"https://registry-1.docker.io", "https://%zz/token", never},
	{"https://registry-1.docker.io", "https://169.254.169.254/token", never},
	{"https://registry-1.docker.io", "https://[64:ff9b::a9fe:a9fe]/token", never},
	{"https://registry-1.docker.io", "https://localhost/token", never},
}

// realmRegistry wants a token, and names a token service for it.
func realmRegistry(realm string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Header.Get("Authorization") == "Bearer good":
			content(w, r)
		case strings.HasPrefix(r.URL.Path, "/v2/"):
			w.Header().Set("WWW-Authenticate", `Bearer realm="`+realm+`"`)
			w.WriteHeader(http.StatusUnauthorized)
		default:
			_, _ = w.Write([]byte(`{"token":"good"}`))
		}
	}
}

func TestLoginGoesOnlyToTheRegistrysOwnRealm(t *testing.T) {
	login := auth.Password{Username: "me", File: writeFile(t, "hunter2")}
	for _, test := range realms {
		for logins, least := range map[auth.Password]reach{{}: anonymous, login: own} {
			c := newClientAt(test.endpoint, logins, realmRegistry(test.realm))
			err := c.pull(t.Context(), "a")
			if (err == nil) != (test.want >= least) {
				t.Errorf("%s names %q to %q: %v; it may lead as far as %d", test.endpoint, test.realm, logins.Username, err, test.want)
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
}

func TestOperatorMayAllowARealmForTheLogin(t *testing.T) {
	for realm, good := range map[string]bool{
		"https://auth.example.org/token":      true,
		"https://Auth.Example.org:443/token":  true,
		"https://auth.example.net:8443/token": true,
		"https://auth.example.net/token":      false,
		"https://auth.example.org:8443/token": false,
		"https://x.auth.example.org/token":    false,
		"http://auth.example.org/token":       false,
		"https://localhost/token":             false,
	} {
		login := auth.Password{Username: "me", File: writeFile(t, "hunter2")}
		c := newClientAt("https://registry.test", login, realmRegistry(realm), "auth.example.org", "auth.example.net:8443", "localhost")
		err := c.pull(t.Context(), "a")
		if (err == nil) != good {
			t.Errorf("%s: %v, want %t", realm, err, good)
		}
	}
}

func TestRefusedRealmSaysHowToAllowIt(t *testing.T) {
	login := auth.Password{Username: "me", File: writeFile(t, "hunter2")}
	err := newClient(login, realmRegistry("https://auth.example.org/token")).pull(t.Context(), "a")
	if err == nil || !strings.Contains(err.Error(), "add auth.example.org to auth.realms") {
		t.Errorf("got %v", err)
	}
}

// A token service redirects each request from /token to a URL. Another path there
// answers it.
func TestTokenServiceMayRedirect(t *testing.T) {
	basic := auth.Password{Username: "me", File: writeFile(t, "hunter2")}
	refresh := newDockerConfig(t, writeFile(t, `{"auths":{"registry.example.com":{"identitytoken":"r3fresh"}}}`), "https://registry.example.com")
	for name, test := range map[string]struct {
		scheme, to string
		with       bool // for a login; anonymous requests follow all of these
	}{
		"another path":       {"https", "/service/token", true},
		"with its query":     {"https", "https://registry.example.com/service/token?service=x&scope=repository:a:pull", true},
		"the port of HTTPS":  {"https", "https://registry.example.com:443/service/token", true},
		"from HTTP to HTTPS": {"http", "https://registry.example.com/service/token", true},
		"another port":       {"https", "https://registry.example.com:8443/service/token", false},
		"a neighbour":        {"https", "https://auth.example.com/service/token", false},
		"another domain":     {"https", "https://evil.example.org/service/token", false},
		"one that is listed": {"https", "https://auth.example.net/service/token", true},
	} {
		for _, status := range []int{301, 302, 307, 308} {
			for who, logins := range map[string]auth.Logins{"anonymous": auth.Password{}, "basic": basic, "refresh token": refresh} {
				t.Run(fmt.Sprintf("%s/%d/%s", name, status, who), func(t *testing.T) {
					var answered int
					c := newClientAt(test.scheme+"://registry.example.com", logins, func(w http.ResponseWriter, r *http.Request) {
						switch {
						case r.Header.Get("Authorization") == "Bearer good":
							content(w, r)
						case r.URL.Path == "/token":
							w.Header().Set("Location", test.to)
							w.WriteHeader(status)
						case r.URL.Path == "/service/token":
							answered++
							_, _, isBasic := r.BasicAuth()
							if isBasic != (who == "basic") || (r.FormValue("refresh_token") == "r3fresh") != (who == "refresh token") ||
								r.FormValue("scope") != "repository:a:pull" {
								t.Errorf("%s %s came with Authorization %q and %v", r.Method, r.URL, r.Header.Get("Authorization"), r.Form)
							}
							_, _ = w.Write([]byte(`{"token":"good"}`))
						default:
							w.Header().Set("WWW-Authenticate", `Bearer realm="`+test.scheme+`://registry.example.com/token",service="x"`)
							w.WriteHeader(http.StatusUnauthorized)
						}
					}, "auth.example.net")
					want := test.with || who == "anonymous"
					err := c.pull(t.Context(), "a")
					if (err == nil) != want || (answered == 1) != want {
						t.Errorf("%v, and %d requests arrived; want %t", err, answered, want)
					}
				})
			}
		}
	}
}

func TestRedirectsOfATokenServiceEnd(t *testing.T) {
	for name, to := range map[string]string{"a loop": "/token", "no URL": "https://%zz/?token=hunter2", "the metadata service": "http://169.254.169.254/"} {
		var asked int
		c := newClient(auth.Password{}, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/token" {
				asked++
				w.Header().Set("Location", to)
				w.WriteHeader(http.StatusFound)
				return
			}
			w.Header().Set("WWW-Authenticate", `Bearer realm="https://registry.test/token"`)
			w.WriteHeader(http.StatusUnauthorized)
		})
		if err := c.pull(t.Context(), "a"); err == nil || strings.Contains(err.Error(), "hunter2") || asked > 4 {
			t.Errorf("%s: %v, asked %d times", name, err, asked)
		}
	}
}
