package auth_test

import (
	"fmt"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/larder-registry/larder/upstream/auth"
	"github.com/larder-registry/larder/upstream/upstreamtest"
)

func newDockerConfig(t *testing.T, file, endpoint string) *auth.DockerConfig {
	t.Helper()
	u, err := url.Parse(endpoint)
	if err != nil {
		t.Fatal(err)
	}
	return auth.NewDockerConfig(file, u)
}

func TestDockerConfigHasTheLoginOfAHost(t *testing.T) {
	installHelper(t, `case $server in
		vault.example.com) echo '{"Username":"helped","Secret":"s1"}' ;;
		refresh.example.com) echo '{"Username":"<token>","Secret":"r1"}' ;;
		*) echo "credentials not found in native keychain"; exit 1 ;;
	esac`)
	me := basicAuth("me", "hunter2:x")
	for name, test := range map[string]struct {
		config, endpoint string
		want             auth.Login
	}{
		"its host":              {`{"auths":{"registry.example.com":{"auth":"` + me + `"}}}`, "https://registry.example.com", auth.Login{Username: "me", Password: "hunter2:x"}},
		"with a port":           {`{"auths":{"registry.example.com:5000":{"auth":"` + me + `"}}}`, "https://registry.example.com:5000", auth.Login{Username: "me", Password: "hunter2:x"}},
		"another port":          {`{"auths":{"registry.example.com":{"auth":"` + me + `"}}}`, "https://registry.example.com:5000", auth.Login{}},
		"another host":          {`{"auths":{"registry.example.com":{"auth":"` + me + `"}}}`, "https://example.com", auth.Login{}},
		"a URL":                 {`{"auths":{"https://registry.example.com/v1/":{"auth":"` + me + `"}}}`, "https://registry.example.com", auth.Login{Username: "me", Password: "hunter2:x"}},
		"a part of it":          {`{"auths":{"registry.example.com/team":{"auth":"` + me + `"}}}`, "https://registry.example.com", auth.Login{}},
		"Docker Hub":            {`{"auths":{"https://index.docker.io/v1/":{"auth":"` + me + `"}}}`, "https://registry-1.docker.io", auth.Login{Username: "me", Password: "hunter2:x"}},
		"Docker Hub by name":    {`{"auths":{"docker.io":{"auth":"` + me + `"}}}`, "https://registry-1.docker.io", auth.Login{Username: "me", Password: "hunter2:x"}},
		"a mirror of it":        {`{"auths":{"docker.io":{"auth":"` + me + `"}}}`, "https://hub.example.com", auth.Login{}},
		"the exact name wins":   {`{"auths":{"docker.io":{"username":"a","password":"b"},"https://index.docker.io/v1/":{"auth":"` + me + `"}}}`, "https://registry-1.docker.io", auth.Login{Username: "me", Password: "hunter2:x"}},
		"in plain":              {`{"auths":{"registry.example.com":{"username":"me","password":"p"}}}`, "https://registry.example.com", auth.Login{Username: "me", Password: "p"}},
		"without padding":       {`{"auths":{"registry.example.com":{"auth":"` + strings.TrimRight(me, "=") + `"}}}`, "https://registry.example.com", auth.Login{Username: "me", Password: "hunter2:x"}},
		"a refresh token":       {`{"auths":{"registry.example.com":{"auth":"` + me + `","identitytoken":"r"}}}`, "https://registry.example.com", auth.Login{Refresh: "r"}},
		"a registry token":      {`{"auths":{"registry.example.com":{"registrytoken":"b"}}}`, "https://registry.example.com", auth.Login{Bearer: "b"}},
		"an empty entry":        {`{"auths":{"registry.example.com":{}}}`, "https://registry.example.com", auth.Login{}},
		"a star for a label":    {`{"auths":{"*.example.com":{"auth":"` + me + `"}}}`, "https://registry.example.com", auth.Login{Username: "me", Password: "hunter2:x"}},
		"a star within a label": {`{"auths":{"reg*.example.com":{"auth":"` + me + `"}}}`, "https://registry.example.com", auth.Login{Username: "me", Password: "hunter2:x"}},
		"stars of ECR":          {`{"auths":{"*.dkr.ecr.*.amazonaws.com":{"auth":"` + me + `"}}}`, "https://123456789012.dkr.ecr.us-east-1.amazonaws.com", auth.Login{Username: "me", Password: "hunter2:x"}},
		"a star in a URL":       {`{"auths":{"https://*.example.com/v2/":{"auth":"` + me + `"}}}`, "https://registry.example.com", auth.Login{Username: "me", Password: "hunter2:x"}},
		"a star with a port":    {`{"auths":{"*.example.com:5000":{"auth":"` + me + `"}}}`, "https://registry.example.com:5000", auth.Login{Username: "me", Password: "hunter2:x"}},
		"a star, another port":  {`{"auths":{"*.example.com":{"auth":"` + me + `"}}}`, "https://registry.example.com:5000", auth.Login{}},
		"a star is one label":   {`{"auths":{"*.example.com":{"auth":"` + me + `"}}}`, "https://a.registry.example.com", auth.Login{}},
		"a star, no label":      {`{"auths":{"*.example.com":{"auth":"` + me + `"}}}`, "https://example.com", auth.Login{}},
		"a star, a part of it":  {`{"auths":{"*.example.com/team":{"auth":"` + me + `"}}}`, "https://registry.example.com", auth.Login{}},
		"a star of Docker Hub":  {`{"auths":{"*.docker.io":{"auth":"` + me + `"}}}`, "https://registry-1.docker.io", auth.Login{Username: "me", Password: "hunter2:x"}},
		"a bad glob":            {`{"auths":{"[.example.com":{"auth":"` + me + `"}}}`, "https://registry.example.com", auth.Login{}},
		"its name before stars": {`{"auths":{"*.example.com":{"username":"a","password":"b"},"registry.example.com":{"auth":"` + me + `"}}}`, "https://registry.example.com", auth.Login{Username: "me", Password: "hunter2:x"}},
		"more letters first":    {`{"auths":{"*.*.com":{"username":"a","password":"b"},"*.example.com":{"auth":"` + me + `"}}}`, "https://registry.example.com", auth.Login{Username: "me", Password: "hunter2:x"}},
		"port 443":              {`{"auths":{"registry.example.com:443":{"auth":"` + me + `"}}}`, "https://registry.example.com", auth.Login{Username: "me", Password: "hunter2:x"}},
		"port 443 asked":        {`{"auths":{"registry.example.com":{"auth":"` + me + `"}}}`, "https://registry.example.com:443", auth.Login{Username: "me", Password: "hunter2:x"}},
		"nothing":               {`{}`, "https://registry.example.com", auth.Login{}},
		"its helper":            {`{"credHelpers":{"vault.example.com":"test"},"auths":{"vault.example.com":{"auth":"` + me + `"}}}`, "https://vault.example.com", auth.Login{Username: "helped", Password: "s1"}},
		"its helper's refresh":  {`{"credHelpers":{"refresh.example.com":"test"}}`, "https://refresh.example.com", auth.Login{Refresh: "r1"}},
		"its helper has none":   {`{"credHelpers":{"registry.example.com":"test"},"auths":{"registry.example.com":{"auth":"` + me + `"}}}`, "https://registry.example.com", auth.Login{}},
		"another's helper":      {`{"credHelpers":{"vault.example.com":"missing"},"auths":{"registry.example.com":{"auth":"` + me + `"}}}`, "https://registry.example.com", auth.Login{Username: "me", Password: "hunter2:x"}},
		"no helper, explicitly": {`{"credsStore":"","credHelpers":{"registry.example.com":""},"auths":{"registry.example.com":{"auth":"` + me + `"}}}`, "https://registry.example.com", auth.Login{Username: "me", Password: "hunter2:x"}},
		"the store":             {`{"credsStore":"test","auths":{"vault.example.com":{}}}`, "https://vault.example.com", auth.Login{Username: "helped", Password: "s1"}},
		"the store has none":    {`{"credsStore":"test","auths":{"registry.example.com":{"auth":"` + me + `"}}}`, "https://registry.example.com", auth.Login{Username: "me", Password: "hunter2:x"}},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDockerConfig(t, writeFile(t, test.config), test.endpoint)
			got, err := d.Login(t.Context())
			if err != nil || got != test.want {
				t.Errorf("got %+v, %v; want %+v", got, err, test.want)
			}
		})
	}
}

func TestErrorOfABrokenDockerConfigHoldsNoSecret(t *testing.T) {
	installHelper(t, `case $server in
		loud.example.com) head -c 70000 /dev/zero | tr '\0' x ;;
		angry.example.com) echo "hunter2 is not the password"; exit 3 ;;
		numeric.example.com) echo '{"Username":"me","Secret":4711}' ;;
		*) echo 'hunter2' ;;
	esac`)
	for name, test := range map[string]struct{ config, host, text string }{
		"not JSON":            {`hunter2`, "a.example.com", "not a Docker configuration"},
		"not base64":          {`{"auths":{"a.example.com":{"auth":"hunter2!"}}}`, "a.example.com", "auth is not the base64"},
		"no colon":            {`{"auths":{"a.example.com":{"auth":"aHVudGVyMg=="}}}`, "a.example.com", "auth is not the base64"},
		"no such helper":      {`{"credHelpers":{"a.example.com":"larder-none"}}`, "a.example.com", "docker-credential-larder-none"},
		"a path for a helper": {`{"credsStore":"../../bin/hunter"}`, "a.example.com", "cannot be the name of a program"},
		"helper that fails":   {`{"credsStore":"test"}`, "angry.example.com", "exit status 3"},
		"helper's number":     {`{"credsStore":"test"}`, "numeric.example.com", "not a login in JSON"},
		"a number":            {`{"auths":{"a.example.com":{"password":4711}}}`, "a.example.com", "password"},
		"an entry of text":    {`{"auths":{"a.example.com":"hunter2"}}`, "a.example.com", "auths"},
		"helper not JSON":     {`{"credsStore":"test"}`, "a.example.com", "docker-credential-test"},
		"helper without end":  {`{"credsStore":"test"}`, "loud.example.com", "docker-credential-test"},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDockerConfig(t, writeFile(t, test.config), "https://"+test.host)
			_, err := d.Login(t.Context())
			upstreamtest.WantNoCredentials(t, err, test.text)
			if strings.Contains(fmt.Sprint(err), "hunter2") || strings.Contains(fmt.Sprint(err), "4711") || len(fmt.Sprint(err)) > 1000 {
				t.Errorf("the error shows too much: %v", err)
			}
		})
	}
	missing := filepath.Join(t.TempDir(), "none")
	_, err := newDockerConfig(t, missing, "https://a.example.com").Login(t.Context())
	upstreamtest.WantNoCredentials(t, err, missing)
}

func TestReplacedDockerConfigIsReadAtTheNextUse(t *testing.T) {
	file := writeFile(t, `{}`)
	c := newClient(newDockerConfig(t, file, "https://registry.test"), requireBasic("me", "new", content))
	wantPermission(t, c.pull(t.Context(), "a"))
	rewriteFile(t, file, `{"auths":{"registry.test":{"auth":"`+basicAuth("me", "new")+`"}}}`)
	if err := c.pull(t.Context(), "a"); err != nil {
		t.Errorf("with the login: %v", err)
	}
}

func TestRefreshTokenGoesToTheTokenServiceAlone(t *testing.T) {
	var form map[string][]string
	file := writeFile(t, `{"auths":{"registry.test":{"identitytoken":"r1"}}}`)
	c := newClient(newDockerConfig(t, file, "https://registry.test"), func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/token" && r.Method == http.MethodPost:
			if err := r.ParseForm(); err != nil {
				t.Error(err)
			}
			form = r.PostForm
			_, _ = w.Write([]byte(`{"access_token":"good","expires_in":300}`))
		case r.Header.Get("Authorization") == "Bearer good":
			content(w, r)
		default:
			if got := r.Header.Get("Authorization"); got != "" {
				t.Errorf("the registry was sent %q", got)
			}
			w.Header().Set("WWW-Authenticate", `Bearer realm="https://registry.test/token",service="the registry"`)
			w.WriteHeader(http.StatusUnauthorized)
		}
	})
	if err := c.pull(t.Context(), "team/app"); err != nil {
		t.Fatal(err)
	}
	want := map[string][]string{
		"grant_type": {"refresh_token"}, "client_id": {"larder"}, "refresh_token": {"r1"},
		"service": {"the registry"}, "scope": {"repository:team/app:pull"},
	}
	if diff := cmp.Diff(want, form); diff != "" {
		t.Errorf("the form for the token service (-want +got):\n%s", diff)
	}
}

func TestRegistryTokenIsSentAsItIs(t *testing.T) {
	file := writeFile(t, `{"auths":{"registry.test":{"registrytoken":"mine"}}}`)
	c := newClient(newDockerConfig(t, file, "https://registry.test"), func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer mine" {
			w.Header().Set("WWW-Authenticate", `Bearer realm="https://registry.test/token"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		content(w, r)
	})
	if err := c.pull(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
}
