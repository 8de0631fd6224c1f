package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/larder-registry/larder/config"
	"github.com/larder-registry/larder/proxy/access"
	"github.com/larder-registry/larder/upstream/privatetest"
)

// guarded is a daemon whose clients' own rights decide at one registry.
type guarded struct {
	registry *privatetest.Registry
	url, dir string
	log      *safeLog
	daemon   *Daemon
	stop     func()
}

// serveGuarded serves, in front of a registry, until the test ends or stop is called. A second call with
// the same folder is a restart. access is the end of the section access.
func serveGuarded(t testing.TB, registry *privatetest.Registry, dir, access string) *guarded {
	t.Helper()
	return serveBy(t, config.AccessClient, registry, dir, access)
}

// serveBy is serveGuarded with the upstream's own key access, and with more lines of the configuration.
func serveBy(t testing.TB, by string, registry *privatetest.Registry, dir, access string, more ...string) *guarded {
	t.Helper()
	cfg, err := config.Load(writeConfig(t, fmt.Sprintf(`listen: 127.0.0.1:0
admin: 127.0.0.1:0
cache: {dir: %s, min_free: 0}
access: {key_file: %s%s}
tags: {ttl: 1m}
default_upstream: ""
upstreams:
  - {host: "%s", endpoint: "%s", access: %s, timeout: 5s}
%s`, filepath.Join(dir, "cache"), filepath.Join(dir, "key", "access.key"), access, registry.Host, registry.URL, by, strings.Join(more, ""))))
	if err != nil {
		t.Fatal(err)
	}
	log := new(safeLog)
	cfg.Log.Level = -4 // debug
	d, err := New(t.Context(), cfg, Options{Version: "v0.0.0-test", Env: os.Environ(), Log: NewLogger(cfg.Log, log)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- errors.Join(d.Serve(ctx), d.Close()) }()
	g := &guarded{registry: registry, url: "http://" + d.Addr().String(), dir: dir, log: log, daemon: d}
	g.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("the daemon ended with %v\n%s", err, log)
		}
	})
	t.Cleanup(g.stop)
	return g
}

// paths are all that a client of an image asks for.
func (g *guarded) paths(t testing.TB, repository string, image v1.Image) map[string]string {
	t.Helper()
	d, err := image.Digest()
	if err != nil {
		t.Fatal(err)
	}
	layers, err := image.Layers()
	if err != nil {
		t.Fatal(err)
	}
	layer, err := layers[0].Digest()
	if err != nil {
		t.Fatal(err)
	}
	base, ns := "/v2/"+repository, "?ns="+g.registry.Host
	return map[string]string{
		"tag":       base + "/manifests/v1" + ns,
		"digest":    base + "/manifests/" + d.String() + ns,
		"layer":     base + "/blobs/" + layer.String() + ns,
		"tags":      base + "/tags/list" + ns,
		"referrers": base + "/referrers/" + d.String() + ns,
	}
}

func TestClientsGetWhatTheirOwnCredentialsMayPull(t *testing.T) {
	for name, basic := range map[string]bool{"bearer": false, "basic": true} {
		t.Run(name, func(t *testing.T) {
			registry := privatetest.Start(t, basic)
			registry.AddUser("alice", "alice's password", "team/a")
			registry.AddUser("bob", "bob's password", "team/b")
			imageA, imageB := registry.Push(t, "team/a", "v1", 100_000), registry.Push(t, "team/b", "v1", 100_000)
			g := serveGuarded(t, registry, t.TempDir(), "")
			for kind, path := range g.paths(t, "team/a", imageA) {
				if status, body := privatetest.Get(t, http.MethodGet, g.url, path, "alice", "alice's password"); status != http.StatusOK {
					t.Errorf("alice: %s: %d %s", kind, status, body)
				}
			}
			cross := g.paths(t, "team/a", imageB)
			missing := g.paths(t, "team/a", registry.Push(t, "team/unseen", "v1", 10))
			for kind, path := range g.paths(t, "team/a", imageA) {
				asked := "sha256:" + regexp.MustCompile("[0-9a-f]{64}").FindString(path)
				for _, method := range []string{http.MethodGet, http.MethodHead} {
					for user, password := range map[string]string{"bob": "bob's password", "alice": "wrong", "mallory": "x", "": ""} {
						status, body := privatetest.Get(t, method, g.url, path, user, password)
						otherStatus, other := privatetest.Get(t, method, g.url, missing[kind], user, password)
						if status < 400 || status == http.StatusServiceUnavailable || status != otherStatus {
							t.Errorf("%s of %s by %q: %d %s, and %d for what is not there", method, kind, user, status, body, otherStatus)
						}
						for _, secret := range []string{"sha256:", "alice's", "bob's"} {
							if strings.Contains(strings.ReplaceAll(body+other, asked, ""), secret) {
								t.Errorf("%s of %s by %q tells %q: %s %s", method, kind, user, secret, body, other)
							}
						}
					}
				}
			}
			if status, body := privatetest.Get(t, http.MethodGet, g.url, cross["layer"], "alice", "alice's password"); status != http.StatusNotFound {
				t.Errorf("the layer of B in A: %d %s", status, body)
			}
			if status, _ := privatetest.Get(t, http.MethodGet, g.url, g.paths(t, "team/b", imageB)["tag"], "bob", "bob's password"); status != http.StatusOK {
				t.Errorf("bob: %d", status)
			}
		})
	}
}

func TestOneFetchServesAllClientsThatMay(t *testing.T) {
	registry := privatetest.Start(t, false)
	for i := range 8 {
		repository := "team/a"
		if i < 3 {
			repository = "team/other"
		}
		registry.AddUser(fmt.Sprint("user", i), fmt.Sprint("password", i), repository)
	}
	image := registry.Push(t, "team/a", "v1", 3_000_000)
	g := serveGuarded(t, registry, t.TempDir(), "")
	all := g.paths(t, "team/a", image)
	var clients sync.WaitGroup
	var mu sync.Mutex
	results := make(map[int]int)
	for n := range 64 {
		clients.Go(func() {
			user, password := fmt.Sprint("user", n%8), fmt.Sprint("password", n%8)
			status, _ := privatetest.Get(t, http.MethodGet, g.url, all["tag"], user, password)
			if status == http.StatusOK {
				status, _ = privatetest.Get(t, http.MethodGet, g.url, all["layer"], user, password)
			}
			mu.Lock()
			defer mu.Unlock()
			results[status]++
		})
	}
	clients.Wait()
	if results[http.StatusOK] != 40 || results[http.StatusForbidden] != 24 {
		t.Errorf("statuses: %v, want 40 times 200 and 24 times 403", results)
	}
	if n := registry.Sent(strings.TrimSuffix(all["layer"], "?ns="+registry.Host)); n != 1 {
		t.Errorf("the layer was fetched %d times", n)
	}
	for q, n := range registry.Asked() {
		if strings.HasPrefix(q.User, "user") && q.Kind == "token" && n > 2 {
			t.Errorf("%+v was asked %d times", q, n)
		}
	}
}

func TestAnswersOfUpstreamsOutliveARestart(t *testing.T) {
	registry := privatetest.Start(t, false)
	registry.AddUser("alice", "alice's password", "team/a")
	image := registry.Push(t, "team/a", "v1", 100_000)
	dir := t.TempDir()
	g := serveGuarded(t, registry, dir, "")
	for kind, path := range g.paths(t, "team/a", image) {
		if status, body := privatetest.Get(t, http.MethodGet, g.url, path, "alice", "alice's password"); status != http.StatusOK {
			t.Fatalf("%s: %d %s", kind, status, body)
		}
	}
	g.stop()
	registry.SetDown(true)
	g = serveGuarded(t, registry, dir, ", recheck: 1ns")
	for _, kind := range []string{"tag", "digest", "layer"} {
		path := g.paths(t, "team/a", image)[kind]
		if status, body := privatetest.Get(t, http.MethodGet, g.url, path, "alice", "alice's password"); status != http.StatusOK {
			t.Errorf("%s by a credential that the upstream knew: %d %s\n%s", kind, status, body, g.log)
		}
		if status, _ := privatetest.Get(t, http.MethodGet, g.url, path, "carol", "carol's password"); status < 400 {
			t.Errorf("%s by a credential that the upstream was never asked about: %d", kind, status)
		}
	}
	g.stop()
	g = serveGuarded(t, registry, dir, ", recheck: 1ns, offline: 0")
	if status, _ := privatetest.Get(t, http.MethodGet, g.url, g.paths(t, "team/a", image)["tag"], "alice", "alice's password"); status < 400 {
		t.Errorf("after the time for which a yes is believed: %d", status)
	}
	g.stop()
	privatetest.RequireNoSecret(t, dir, g.log.String(), "alice's password", "carol's password")
}

func TestForgottenRightsAreAskedAgain(t *testing.T) {
	registry := privatetest.Start(t, false)
	registry.AddUser("alice", "alice's password", "team/a")
	registry.AddUser("carol", "carol's password", "team/a")
	image := registry.Push(t, "team/a", "v1", 1000)
	g := serveGuarded(t, registry, t.TempDir(), "")
	tag := g.paths(t, "team/a", image)["tag"]
	get := func(user string) int {
		status, _ := privatetest.Get(t, http.MethodGet, g.url, tag, user, user+"'s password")
		return status
	}
	for _, user := range []string{"alice", "carol"} {
		if status := get(user); status != http.StatusOK {
			t.Fatalf("%s: %d", user, status)
		}
	}
	registry.AddUser("alice", "alice's password")
	registry.AddUser("carol", "carol's password")
	if status := get("alice"); status != http.StatusOK {
		t.Errorf("before what the upstream said is forgotten: %d", status)
	}
	api := http.NewServeMux()
	addAccess(api, g.daemon.access)
	ask := func(method, path string, into any) {
		t.Helper()
		w := httptest.NewRecorder()
		api.ServeHTTP(w, httptest.NewRequest(method, path, http.NoBody))
		if err := json.Unmarshal(w.Body.Bytes(), into); err != nil {
			t.Fatalf("%s %s: %v\n%s", method, path, err, w.Body)
		}
	}
	var done Forgotten
	ask(http.MethodDelete, "/api/v1/access?user=alice&upstream="+registry.Host, &done)
	var left []access.Decision
	ask(http.MethodGet, "/api/v1/access", &left)
	if done.Decisions != 2 || len(left) != 2 || left[0].User != "carol" || left[1].Repository != "team/a" || !left[1].Allowed {
		t.Errorf("%d decisions are forgotten, and left are %+v", done.Decisions, left)
	}
	if status := get("alice"); status != http.StatusForbidden {
		t.Errorf("afterwards: %d", status)
	}
	if status := get("carol"); status != http.StatusOK {
		t.Errorf("another user: %d", status)
	}
	refusals := g.daemon.proxy.Refusals()
	if len(refusals) != 1 || refusals[0].Registry != registry.Host || refusals[0].Reason != "client refused" ||
		refusals[0].Text != `the registry does not let user "alice" pull from team/a` {
		t.Errorf("refusals: %+v", refusals)
	}
}

// A registry hides what a client may not have, and takes a client's right away. Its requests take nothing from
// another client's image.
func TestHiddenAnswerToOneClientIsNoAnswerToAnother(t *testing.T) {
	registry := privatetest.Start(t, false)
	registry.Hide()
	registry.AddUser("alice", "alice's password", "team/a")
	registry.AddUser("carol", "carol's password", "team/a")
	image := registry.Push(t, "team/a", "v1", 100_000)
	g := serveGuarded(t, registry, t.TempDir(), "")
	all := g.paths(t, "team/a", image)
	get := func(user, kind string) int {
		status, _ := privatetest.Get(t, http.MethodGet, g.url, all[kind], user, user+"'s password")
		return status
	}
	for _, user := range []string{"carol", "alice"} {
		if status := get(user, "tag"); status != http.StatusOK {
			t.Fatalf("%s: %d", user, status)
		}
	}
	registry.AddUser("alice", "alice's password")
	if status := get("alice", "layer"); status != http.StatusOK { // what the registry said to her still holds
		t.Errorf("alice: %d", status)
	}
	if status := get("carol", "layer"); status != http.StatusOK {
		t.Errorf("carol: %d", status)
	}
}

func TestRightsThatWereTakenAwayEndAtTheRecheck(t *testing.T) {
	for _, hides := range []bool{false, true} {
		registry := privatetest.Start(t, false)
		if hides {
			registry.Hide()
		}
		registry.AddUser("alice", "alice's password", "team/a")
		image := registry.Push(t, "team/a", "v1", 1000)
		g := serveGuarded(t, registry, t.TempDir(), ", recheck: 1ns")
		for step, may := range []bool{true, false} {
			if !may {
				registry.AddUser("alice", "alice's password")
			}
			for kind, path := range g.paths(t, "team/a", image) {
				for _, method := range []string{http.MethodGet, http.MethodHead} {
					status, body := privatetest.Get(t, method, g.url, path, "alice", "alice's password")
					if (status == http.StatusOK) != may || status >= http.StatusInternalServerError {
						t.Errorf("step %d, %s of %s (the registry hides: %t): %d %s", step, method, kind, hides, status, body)
					}
				}
			}
		}
	}
}

func TestBadRequestsForTokensAreRefused(t *testing.T) {
	registry := privatetest.Start(t, false)
	registry.AddUser("alice", "alice's password", "team/a")
	image := registry.Push(t, "team/a", "v1", 1000)
	g := serveGuarded(t, registry, t.TempDir(), "")
	send := func(method, path, form string, authorization ...string) (int, http.Header) {
		req, err := http.NewRequestWithContext(t.Context(), method, g.url+path, strings.NewReader(form))
		if err != nil {
			t.Fatal(err)
		}
		if form != "" {
			req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		}
		for _, value := range authorization {
			req.Header.Add("Authorization", value)
		}
		resp, err := (&http.Transport{DisableKeepAlives: true, DialContext: new(net.Dialer).DialContext}).RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.StatusCode, resp.Header
	}
	token, ns := "/auth/token?ns="+registry.Host, "&scope=repository:team/a:pull"
	good := "grant_type=password&username=alice&scope=repository:team/a:pull&password=" + url.QueryEscape("alice's password")
	for name, c := range map[string]struct {
		method, path, form string
		authorization      []string
		want               int
	}{
		"good":                       {http.MethodPost, token, good, nil, http.StatusOK},
		"a form of more than 64 KiB": {http.MethodPost, token, good + strings.Repeat("+", 64<<10), nil, http.StatusRequestEntityTooLarge},
		"a long password":            {http.MethodPost, token, good + strings.Repeat("x", 20<<10), nil, http.StatusBadRequest},
		"a long user name":           {http.MethodPost, token, "grant_type=password&username=" + strings.Repeat("x", 300), nil, http.StatusBadRequest},
		"thousands of scopes":        {http.MethodPost, token, good + strings.Repeat("&scope=repository:team/a:pull", 1000), nil, http.StatusBadRequest},
		"another grant":              {http.MethodPost, token, "grant_type=authorization_code&code=x", nil, http.StatusBadRequest},
		"a form that is none":        {http.MethodPost, token, "grant_type=password&%zz", nil, http.StatusBadRequest},
		"two headers":                {http.MethodGet, token + ns, "", []string{"Basic eDp5", "Basic eDp5"}, http.StatusBadRequest},
		"two headers at the image":   {http.MethodGet, g.paths(t, "team/a", image)["tag"], "", []string{"Bearer x", "Bearer y"}, http.StatusBadRequest},
		"a write elsewhere":          {http.MethodPost, "/v2/team/a/blobs/uploads/", "x", nil, http.StatusMethodNotAllowed},
		"a write to another path":    {http.MethodPost, "/auth/token/", "grant_type=password", nil, http.StatusMethodNotAllowed},
		"a wrong password":           {http.MethodGet, token + ns, "", []string{"Basic YWxpY2U6eA=="}, http.StatusUnauthorized},
		"scopes of other kinds":      {http.MethodGet, token + "&scope=registry:catalog:*&scope=repository:t%C3%A9am/%C3%A9:pull&scope=repository:h:1:x:pull", "", []string{"Basic YWxpY2U6eA=="}, http.StatusOK},
	} {
		if status, _ := send(c.method, c.path, c.form, c.authorization...); status != c.want {
			t.Errorf("%s: %d, want %d", name, status, c.want)
		}
	}
	if n := registry.Asked()[privatetest.Question{User: "alice", Repository: "team/a", Kind: "token"}]; n > 3 {
		t.Errorf("the registry was asked %d times", n)
	}
	before := len(registry.Asked())
	for _, forged := range []string{"x", "Bearer", "Bearer ", "Bearer " + strings.Repeat("x", 16<<10), "Bearer \t\"", "bearer ABCDEFGHIJKLMNOPQRSTUVWXYZ"} {
		status, header := send(http.MethodGet, g.paths(t, "team/a", image)["tag"], "", forged)
		if status != http.StatusUnauthorized || !strings.Contains(header.Get("WWW-Authenticate"), `scope="repository:team/a:pull"`) {
			t.Errorf("%.20q: %d %s", forged, status, header)
		}
	}
	if len(registry.Asked()) != before {
		t.Errorf("the registry was asked about forged tokens: %v", registry.Asked())
	}
}
