package upstream

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// installHelper puts a shell script on the PATH as docker-credential-test. It
// has the server that it is asked for in $server, and what it writes is its
// answer. The returned file has a line for each run.
func installHelper(t *testing.T, script string) (runs string) {
	t.Helper()
	dir := t.TempDir()
	runs = filepath.Join(dir, "runs")
	script = fmt.Sprintf("#!/bin/sh\nread -r server || [ \"$server\" ]\necho \"$1 $server\" >>%s\n%s\n", runs, script)
	if err := os.WriteFile(filepath.Join(dir, "docker-credential-test"), []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+string(os.PathListSeparator)+os.Getenv("PATH"))
	return runs
}

func wantRuns(t *testing.T, runs string, want ...string) {
	t.Helper()
	raw, err := os.ReadFile(runs)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	if diff := cmp.Diff(strings.Join(want, "\n"), strings.TrimSpace(string(raw))); diff != "" {
		t.Errorf("runs of the helper (-want +got):\n%s", diff)
	}
}

func dockerConfigFile(t *testing.T, content string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "config.json")
	writeFile(t, name, content)
	return name
}

func basicAuth(username, password string) string {
	return base64.StdEncoding.EncodeToString([]byte(username + ":" + password))
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
		want             login
	}{
		"its host":              {`{"auths":{"registry.example.com":{"auth":"` + me + `"}}}`, "https://registry.example.com", login{username: "me", password: "hunter2:x"}},
		"with a port":           {`{"auths":{"registry.example.com:5000":{"auth":"` + me + `"}}}`, "https://registry.example.com:5000", login{username: "me", password: "hunter2:x"}},
		"another port":          {`{"auths":{"registry.example.com":{"auth":"` + me + `"}}}`, "https://registry.example.com:5000", login{}},
		"another host":          {`{"auths":{"registry.example.com":{"auth":"` + me + `"}}}`, "https://example.com", login{}},
		"a URL":                 {`{"auths":{"https://registry.example.com/v1/":{"auth":"` + me + `"}}}`, "https://registry.example.com", login{username: "me", password: "hunter2:x"}},
		"a part of it":          {`{"auths":{"registry.example.com/team":{"auth":"` + me + `"}}}`, "https://registry.example.com", login{}},
		"Docker Hub":            {`{"auths":{"https://index.docker.io/v1/":{"auth":"` + me + `"}}}`, "https://registry-1.docker.io", login{username: "me", password: "hunter2:x"}},
		"Docker Hub by name":    {`{"auths":{"docker.io":{"auth":"` + me + `"}}}`, "https://registry-1.docker.io", login{username: "me", password: "hunter2:x"}},
		"a mirror of it":        {`{"auths":{"docker.io":{"auth":"` + me + `"}}}`, "https://hub.example.com", login{}},
		"the exact name wins":   {`{"auths":{"docker.io":{"username":"a","password":"b"},"https://index.docker.io/v1/":{"auth":"` + me + `"}}}`, "https://registry-1.docker.io", login{username: "me", password: "hunter2:x"}},
		"in plain":              {`{"auths":{"registry.example.com":{"username":"me","password":"p"}}}`, "https://registry.example.com", login{username: "me", password: "p"}},
		"without padding":       {`{"auths":{"registry.example.com":{"auth":"` + strings.TrimRight(me, "=") + `"}}}`, "https://registry.example.com", login{username: "me", password: "hunter2:x"}},
		"a refresh token":       {`{"auths":{"registry.example.com":{"auth":"` + me + `","identitytoken":"r"}}}`, "https://registry.example.com", login{refresh: "r"}},
		"a registry token":      {`{"auths":{"registry.example.com":{"registrytoken":"b"}}}`, "https://registry.example.com", login{bearer: "b"}},
		"an empty entry":        {`{"auths":{"registry.example.com":{}}}`, "https://registry.example.com", login{}},
		"nothing":               {`{}`, "https://registry.example.com", login{}},
		"its helper":            {`{"credHelpers":{"vault.example.com":"test"},"auths":{"vault.example.com":{"auth":"` + me + `"}}}`, "https://vault.example.com", login{username: "helped", password: "s1"}},
		"its helper's refresh":  {`{"credHelpers":{"refresh.example.com":"test"}}`, "https://refresh.example.com", login{refresh: "r1"}},
		"its helper has none":   {`{"credHelpers":{"registry.example.com":"test"},"auths":{"registry.example.com":{"auth":"` + me + `"}}}`, "https://registry.example.com", login{}},
		"another's helper":      {`{"credHelpers":{"vault.example.com":"missing"},"auths":{"registry.example.com":{"auth":"` + me + `"}}}`, "https://registry.example.com", login{username: "me", password: "hunter2:x"}},
		"no helper, explicitly": {`{"credsStore":"","credHelpers":{"registry.example.com":""},"auths":{"registry.example.com":{"auth":"` + me + `"}}}`, "https://registry.example.com", login{username: "me", password: "hunter2:x"}},
		"the store":             {`{"credsStore":"test","auths":{"vault.example.com":{}}}`, "https://vault.example.com", login{username: "helped", password: "s1"}},
		"the store has none":    {`{"credsStore":"test","auths":{"registry.example.com":{"auth":"` + me + `"}}}`, "https://registry.example.com", login{username: "me", password: "hunter2:x"}},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDockerConfig(dockerConfigFile(t, test.config), mustURL(t, test.endpoint))
			got, err := d.login(t.Context())
			if err != nil || got != test.want {
				t.Errorf("got %+v, %v; want %+v", got, err, test.want)
			}
		})
	}
}

func TestBrokenDockerConfigIsToldWithoutItsSecrets(t *testing.T) {
	installHelper(t, `case $server in
		loud.example.com) head -c 70000 /dev/zero | tr '\0' x ;;
		angry.example.com) echo "the vault is sealed"; exit 3 ;;
		*) echo 'hunter2' ;;
	esac`)
	for name, test := range map[string]struct{ config, host, text string }{
		"not JSON":            {`hunter2`, "a.example.com", "not a Docker configuration"},
		"not base64":          {`{"auths":{"a.example.com":{"auth":"hunter2!"}}}`, "a.example.com", "auth is not the base64"},
		"no colon":            {`{"auths":{"a.example.com":{"auth":"aHVudGVyMg=="}}}`, "a.example.com", "auth is not the base64"},
		"no such helper":      {`{"credHelpers":{"a.example.com":"larder-none"}}`, "a.example.com", "docker-credential-larder-none"},
		"a path for a helper": {`{"credsStore":"../../bin/hunter"}`, "a.example.com", "cannot be the name of a program"},
		"helper that fails":   {`{"credsStore":"test"}`, "angry.example.com", "the vault is sealed"},
		"helper not JSON":     {`{"credsStore":"test"}`, "a.example.com", "docker-credential-test"},
		"helper without end":  {`{"credsStore":"test"}`, "loud.example.com", "docker-credential-test"},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDockerConfig(dockerConfigFile(t, test.config), mustURL(t, "https://"+test.host))
			_, err := d.login(t.Context())
			wantNoCredentials(t, err, test.text)
			if strings.Contains(fmt.Sprint(err), "hunter2") || len(fmt.Sprint(err)) > 1000 {
				t.Errorf("the error shows too much: %v", err)
			}
		})
	}
	missing := newDockerConfig(filepath.Join(t.TempDir(), "none"), mustURL(t, "https://a.example.com"))
	_, err := missing.login(t.Context())
	wantNoCredentials(t, err, missing.file)
}

func TestReplacedDockerConfigIsReadAtTheNextUse(t *testing.T) {
	file := dockerConfigFile(t, `{}`)
	r, _ := startPlain(t, Config{DockerConfig: file}, requireBasic("me", "new", content))
	if _, err := blobBody(t, r); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("without a login: %v, want %v", err, fs.ErrPermission)
	}
	writeFile(t, file, `{"auths":{"`+r.endpoint.Host+`":{"auth":"`+basicAuth("me", "new")+`"}}}`)
	if got, err := blobBody(t, r); err != nil || got != "content" {
		t.Errorf("with the login: %q, %v", got, err)
	}
}

func TestHelperIsAskedOnceForAll(t *testing.T) {
	runs := installHelper(t, `echo '{"Username":"me","Secret":"hunter2"}'`)
	cfg := Config{DockerConfig: dockerConfigFile(t, `{"credsStore":"test"}`)}
	r, _ := startPlain(t, cfg, requireBasic("me", "hunter2", content))
	var done sync.WaitGroup
	for range 8 {
		done.Go(func() {
			if err := pull(t, r, "a"); err != nil {
				t.Error(err)
			}
		})
	}
	done.Wait()
	wantRuns(t, runs, "get "+r.endpoint.Host)
}

func TestRefusedLoginOfAHelperIsRenewed(t *testing.T) {
	runs := installHelper(t, `echo '{"Username":"me","Secret":"hunter2"}'`)
	cfg := Config{DockerConfig: dockerConfigFile(t, `{"credsStore":"test"}`)}
	registries := map[string]func(http.HandlerFunc) http.HandlerFunc{
		"basic": func(next http.HandlerFunc) http.HandlerFunc { return requireBasic("me", "hunter2", next) },
		"bearer": func(next http.HandlerFunc) http.HandlerFunc {
			service := requireBasic("me", "hunter2", func(w http.ResponseWriter, _ *http.Request) {
				_, _ = w.Write([]byte(`{"token":"good"}`))
			})
			return func(w http.ResponseWriter, r *http.Request) {
				switch {
				case r.URL.Path == "/token":
					service(w, r)
				case r.Header.Get("Authorization") == "Bearer good":
					next(w, r)
				default:
					w.Header().Set("WWW-Authenticate", `Bearer realm="http://`+r.Host+`/token"`)
					w.WriteHeader(http.StatusUnauthorized)
				}
			}
		},
	}
	for name, registry := range registries {
		t.Run(name, func(t *testing.T) {
			r, _ := startPlain(t, cfg, registry(content))
			if err := pull(t, r, "a"); err != nil {
				t.Fatal(err)
			}
			writeFile(t, runs, "")
			r.auth.(*challenged).tokens.Purge()
			d := r.auth.(*challenged).logins.(*dockerConfig)
			d.kept = helperAnswer{helper: "test", login: login{username: "me", password: "old"}, at: time.Now().Add(-helperPause)}
			if err := pull(t, r, "a"); err != nil {
				t.Fatal(err)
			}
			wantRuns(t, runs, "get "+r.endpoint.Host)
			d.kept.login.password = "old" // it has just been asked, and gave a login that is no good
			r.auth.(*challenged).tokens.Purge()
			if err := pull(t, r, "a"); !errors.Is(err, fs.ErrPermission) {
				t.Errorf("got %v, want %v", err, fs.ErrPermission)
			}
			wantRuns(t, runs, "get "+r.endpoint.Host)
		})
	}
}

func TestHelperThatFailsIsLeftAloneForAWhile(t *testing.T) {
	runs := installHelper(t, `exit 1`)
	d := newDockerConfig(dockerConfigFile(t, `{"credsStore":"test"}`), mustURL(t, "https://a.example.com"))
	for range 3 {
		_, err := d.login(t.Context())
		wantNoCredentials(t, err, "docker-credential-test")
	}
	wantRuns(t, runs, "get a.example.com")
	d.kept.at = d.kept.at.Add(-helperPause)
	_, err := d.login(t.Context())
	wantNoCredentials(t, err, "docker-credential-test")
	wantRuns(t, runs, "get a.example.com", "get a.example.com")
}

func TestRefreshTokenGoesToTheTokenServiceAlone(t *testing.T) {
	var form map[string][]string
	r, _ := startPlain(t, Config{}, func(w http.ResponseWriter, r *http.Request) {
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
			if auth := r.Header.Get("Authorization"); auth != "" {
				t.Errorf("the registry was sent %q", auth)
			}
			w.Header().Set("WWW-Authenticate", `Bearer realm="http://`+r.Host+`/token",service="the registry"`)
			w.WriteHeader(http.StatusUnauthorized)
		}
	})
	r.auth.(*challenged).logins = newDockerConfig(
		dockerConfigFile(t, `{"auths":{"`+r.endpoint.Host+`":{"identitytoken":"r1"}}}`), r.endpoint)
	if err := pull(t, r, "team/app"); err != nil {
		t.Fatal(err)
	}
	want := map[string][]string{
		"grant_type": {"refresh_token"}, "client_id": {"larder"}, "refresh_token": {"r1"},
		"service": {"the registry"}, "scope": {"repository:team/app:pull"},
	}
	if diff := cmp.Diff(want, form); diff != "" {
		t.Errorf("what the token service was sent (-want +got):\n%s", diff)
	}
}

func TestRegistryTokenIsSentAsItIs(t *testing.T) {
	r, _ := startPlain(t, Config{}, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer mine" {
			w.Header().Set("WWW-Authenticate", `Bearer realm="http://`+r.Host+`/token"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		content(w, r)
	})
	r.auth.(*challenged).logins = newDockerConfig(
		dockerConfigFile(t, `{"auths":{"`+r.endpoint.Host+`":{"registrytoken":"mine"}}}`), r.endpoint)
	if err := pull(t, r, "a"); err != nil {
		t.Fatal(err)
	}
}

func TestDockerConfigComesBeforeECRsOwnTokens(t *testing.T) {
	c, _ := newTestClient(t, Config{Host: "123456789012.dkr.ecr.us-east-1.amazonaws.com", DockerConfig: "/none"})
	if _, ok := registryOf(t, c, "123456789012.dkr.ecr.us-east-1.amazonaws.com").auth.(*challenged); !ok {
		t.Error("it authenticates by the ECR API")
	}
}

func TestHelperThatHangsIsEnded(t *testing.T) {
	installHelper(t, `exec sleep 600`)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, err := runHelper(ctx, "test", "a.example.com")
	wantNoCredentials(t, err, "docker-credential-test")
}
