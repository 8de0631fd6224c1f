package daemon

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/larder-registry/larder/config"
	"github.com/larder-registry/larder/upstream/privatetest"
)

// watched is a daemon whose clients' rights decide at a registry, at one that repeats what it is sent, and at one that
// does not answer until answer is closed. All that it shows is kept.
type watched struct {
	*guarded
	collector *collector
	shown     *strings.Builder
	asked     chan struct{} // has a value for each request that waits
	answer    chan struct{}
}

func serveWatched(t *testing.T) *watched {
	t.Helper()
	registry := privatetest.Start(t, false)
	w := &watched{collector: newCollector(t), shown: new(strings.Builder), asked: make(chan struct{}, 100), answer: make(chan struct{})}
	loud := httptest.NewServer(http.HandlerFunc(loudRegistry))
	slow := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") == "" {
			rw.Header().Set("WWW-Authenticate", `Basic realm="slow"`)
			rw.WriteHeader(http.StatusUnauthorized)
			return
		}
		w.asked <- struct{}{}
		<-w.answer
	}))
	t.Cleanup(loud.Close)
	t.Cleanup(slow.Close)
	dir := t.TempDir()
	w.guarded = serveBy(t, config.AccessClient, registry, dir, "", fmt.Sprintf(`  - {host: loud.example.com, endpoint: %q, access: client}
  - {host: slow.example.com, endpoint: %q, access: client}
  - {host: node.example.com, endpoint: %q}
audit: {file: %q}
telemetry: {otlp_endpoint: %q, sample_ratio: 1}
`, loud.URL, slow.URL, registry.URL, filepath.Join(dir, "audit.json"), w.collector.URL))
	return w
}

// send sends a request, and keeps its answer.
func (w *watched) send(t *testing.T, client *http.Client, method, target, form string, authorization ...string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, target, strings.NewReader(form))
	if err != nil {
		t.Fatal(err)
	}
	if form != "" {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	req.Header["Authorization"] = authorization
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if err := resp.Header.Write(w.shown); err != nil {
		t.Error(err)
	}
	if _, err := io.Copy(w.shown, resp.Body); err != nil {
		t.Error(err)
	}
}

// state keeps what operators are shown.
func (w *watched) state(t *testing.T) {
	t.Helper()
	plain := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for _, path := range []string{"/", "/metrics", "/readyz", "/debug/pprof/goroutine?debug=2"} {
		w.send(t, plain, http.MethodGet, "http://"+w.daemon.listeners.admin.Addr().String()+path, "")
	}
	commands := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return Dial(ctx, w.daemon.cfg.Cache.Dir)
	}}}
	for _, path := range []string{"/api/v1/stats", "/api/v1/activity", "/api/v1/access", "/api/v1/images"} {
		w.send(t, commands, http.MethodGet, "http://larder"+path, "")
	}
}

// Clients send right and wrong credentials in every form, also to an upstream that takes none, in requests that are
// malformed, and to a registry that repeats them. One request is not over when the state is shown.
func TestNoCredentialOfAClientIsShownOrKept(t *testing.T) {
	w := serveWatched(t)
	secrets := []string{"alice's p@ss/word+1", "bob's p@ss/word+2", "carol's p@ss/word+3", "dave's p@ss/word+4", "erin's p@ss/word+5", "frank's p@ss/word+6"}
	of := func(user string) string {
		return secrets[slices.IndexFunc(secrets, func(s string) bool { return strings.HasPrefix(s, user) })]
	}
	w.registry.AddUser("alice", of("alice"), "team/a")
	w.registry.AddIdentityToken("alice", of("erin"))
	image := w.registry.Push(t, "team/a", "v1", 1000)
	paths := w.paths(t, "team/a", image)
	for _, path := range paths {
		for user, password := range map[string]string{"alice": of("alice"), "bob": of("bob")} {
			_, body := privatetest.Get(t, http.MethodGet, w.url, path, user, password)
			w.shown.WriteString(body)
		}
		_, body := privatetest.Get(t, http.MethodGet, w.url, strings.ReplaceAll(path, w.registry.Host, "loud.example.com"), "carol", of("carol"))
		w.shown.WriteString(body)
		_, body = privatetest.Get(t, http.MethodGet, w.url, strings.ReplaceAll(path, w.registry.Host, "node.example.com"), "frank", of("frank"))
		w.shown.WriteString(body)
	}
	plain := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	token, scope := w.url+"/auth/token?ns="+w.registry.Host, "&scope=repository:team/a:pull"
	basic := func(user string) string {
		req, _ := http.NewRequest(http.MethodGet, "http://x", http.NoBody)
		req.SetBasicAuth(user, of(user))
		return req.Header.Get("Authorization")
	}
	for _, form := range []string{
		"grant_type=refresh_token&refresh_token=" + url.QueryEscape(of("erin")) + scope,
		"grant_type=refresh_token&refresh_token=" + url.QueryEscape(of("dave")) + scope,
		"grant_type=password&username=dave&password=" + url.QueryEscape(of("dave")) + scope,
		"grant_type=none&password=" + url.QueryEscape(of("dave")),
		"grant_type=password&username=%zz&password=" + url.QueryEscape(of("dave")),
	} {
		w.send(t, plain, http.MethodPost, token, form)
	}
	w.send(t, plain, http.MethodGet, token+scope, "", basic("dave"), basic("alice"))
	w.send(t, plain, http.MethodGet, w.url+paths["tag"], "", basic("dave"))
	w.send(t, plain, http.MethodGet, w.url+paths["tag"], "", "Bearer "+of("dave"))
	w.send(t, plain, http.MethodGet, w.url+"/v2/", "", basic("dave"))
	w.send(t, plain, http.MethodGet, w.url+"/v2/team/a/manifests/v1?ns=node.example.com", "", basic("frank"))

	done := make(chan struct{})
	go func() {
		defer close(done)
		resp, err := plain.Do(mustRequest(w.url+"/auth/token?ns=slow.example.com"+scope, basic("dave")))
		if err == nil {
			resp.Body.Close()
		}
	}()
	<-w.asked
	w.state(t)
	close(w.answer)
	<-done
	w.stop() // sends the traces
	w.requireAll(t)
	privatetest.RequireNoSecret(t, w.dir, w.log.String()+w.shown.String(), secrets...)
}

func mustRequest(target, authorization string) *http.Request {
	req, err := http.NewRequest(http.MethodGet, target, http.NoBody)
	if err != nil {
		panic(err)
	}
	req.Header.Set("Authorization", authorization)
	return req
}

// requireAll adds the traces to what was shown, and requires that each place has something to be searched.
func (w *watched) requireAll(t *testing.T) {
	t.Helper()
	w.collector.mu.Lock()
	for _, span := range w.collector.spans {
		w.shown.WriteString(span.String())
	}
	w.collector.mu.Unlock()
	audit, err := os.ReadFile(filepath.Join(w.dir, "audit.json"))
	if err != nil {
		t.Fatal(err)
	}
	for place, c := range map[string]struct{ text, has string }{
		"the traces":       {w.shown.String(), "trace_id"},
		"the metrics":      {w.shown.String(), `larder_access_decisions_total{`},
		"the answers":      {w.shown.String(), `"access_token"`},
		"the goroutines":   {w.shown.String(), "access.(*Gate).Decide"},
		"the state":        {w.shown.String(), `the registry does not let user \"`},
		"the decisions":    {w.shown.String(), `"user":"alice"`},
		"a loud registry":  {w.shown.String(), "[redacted]"},
		"the log at debug": {w.log.String(), "level=DEBUG"},
		"the audit":        {string(audit), `"user":"bob"`},
		"another audit":    {string(audit), `"user":"alice"`},
	} {
		if !strings.Contains(c.text, c.has) {
			t.Errorf("%s is not searched: there is no %s", place, c.has)
		}
	}
}

// A client with a wrong password never asks for the image itself.
func TestRefusedLoginsAreCountedShownAndAudited(t *testing.T) {
	w := serveWatched(t)
	w.registry.AddUser("alice", "alice's password", "team/a")
	tag := w.paths(t, "team/a", w.registry.Push(t, "team/a", "v1", 1000))["tag"]
	for _, password := range []string{"alice's password", "wrong"} {
		privatetest.Get(t, http.MethodGet, w.url, tag, "alice", password)
	}
	w.state(t)
	for _, line := range []string{
		`larder_access_decisions_total{reason="upstream",result="allowed"} 1`,
		`larder_access_decisions_total{reason="upstream",result="refused"} 1`,
		`larder_access_decisions_total{reason="upstream",result="limited"} 0`,
		`larder_requests_refused_total{reason="client refused",upstream="` + w.registry.Host + `"} 1`,
		`target="tokens"`,
	} {
		if !strings.Contains(w.shown.String(), line) {
			t.Errorf("the metrics have no %s", line)
		}
	}
	refusals := w.daemon.proxy.Refusals()
	if len(refusals) != 1 || refusals[0].Registry != w.registry.Host || refusals[0].Text != `the registry does not let user "alice" pull from team/a` {
		t.Errorf("the page shows %+v", refusals)
	}
	w.stop()
	raw, err := os.ReadFile(filepath.Join(w.dir, "audit.json"))
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(raw)), "\n")
	var last struct {
		User, Upstream, Repository, Why string
		Allowed                         bool
	}
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &last); err != nil {
		t.Fatal(err)
	}
	if len(lines) != 2 || last.User != "alice" || last.Upstream != w.registry.Host || last.Repository != "team/a" || last.Why != "refused" || last.Allowed {
		t.Errorf("the audit has\n%s", raw)
	}
}
