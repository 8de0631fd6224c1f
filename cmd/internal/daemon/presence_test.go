package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/cache"
	"github.com/larder-registry/larder/config"
	"github.com/larder-registry/larder/upstream"
	"github.com/larder-registry/larder/upstream/guard/guardtest"
	"github.com/larder-registry/larder/upstream/name"
)

const (
	ecrPattern = "*.dkr.ecr.*.amazonaws.com"
	ecrOne     = "123456789012.dkr.ecr.us-east-1.amazonaws.com"
	ecrTwo     = "210987654321.dkr.ecr.eu-west-1.amazonaws.com"
)

// testPresence is that of a configuration with a pattern and Docker Hub, of which these are offline.
func testPresence(t *testing.T, offline ...string) (*presence, func(offline ...string)) {
	t.Helper()
	of := func(offline ...string) *config.Config {
		cfg := new(config.Config)
		for _, host := range []string{ecrPattern, name.DockerHub} {
			cfg.Upstreams = append(cfg.Upstreams, config.Upstream{Host: name.HostPattern(host), Offline: slices.Contains(offline, host)})
		}
		return cfg
	}
	p := newPresence(of(offline...), slog.New(slog.DiscardHandler))
	return p, func(offline ...string) { p.reset(of(offline...)) }
}

// wantOffline checks which of some hosts are offline.
func wantOffline(t *testing.T, p *presence, want ...string) {
	t.Helper()
	for _, host := range []string{ecrOne, ecrTwo, name.DockerHub, "quay.io", "not a host"} {
		if got := p.isOffline(host); got != slices.Contains(want, host) {
			t.Errorf("%s: offline %t", host, got)
		}
	}
}

func setPresence(t *testing.T, p *presence, host string, offline bool) {
	t.Helper()
	if err := p.set(host, offline); err != nil {
		t.Error(err)
	}
}

func TestUpstreamIsOfflineAsConfiguredUntilACommandSaysOtherwise(t *testing.T) {
	p, reload := testPresence(t, ecrPattern)
	wantOffline(t, p, ecrOne, ecrTwo)
	setPresence(t, p, ecrOne, false)
	wantOffline(t, p, ecrTwo)
	setPresence(t, p, "registry-1.docker.io", true) // another name of docker.io
	wantOffline(t, p, ecrTwo, name.DockerHub)
	setPresence(t, p, ecrPattern, true) // all of its hosts
	wantOffline(t, p, ecrOne, ecrTwo, name.DockerHub)
	setPresence(t, p, "", false)
	wantOffline(t, p)
	setPresence(t, p, "", true)
	wantOffline(t, p, ecrOne, ecrTwo, name.DockerHub)
	reload(ecrPattern)
	wantOffline(t, p, ecrOne, ecrTwo)
	reload()
	wantOffline(t, p)
	for _, host := range []string{"quay.io", "*.quay.io", "not a host", "*"} {
		if err := p.set(host, true); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%q: %v", host, err)
		}
	}
	wantOffline(t, p)
}

func TestTimeOfflineEndsWhenAnUpstreamGoesOnline(t *testing.T) {
	for name, online := range map[string]func(p *presence, reload func(...string)){
		"the host":   func(p *presence, _ func(...string)) { setPresence(t, p, ecrOne, false) },
		"its entry":  func(p *presence, _ func(...string)) { setPresence(t, p, ecrPattern, false) },
		"all":        func(p *presence, _ func(...string)) { setPresence(t, p, "", false) },
		"by reading": func(_ *presence, reload func(...string)) { reload() },
	} {
		for _, offline := range []string{ecrOne, ecrPattern} {
			t.Run(name+", "+offline, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					p, reload := testPresence(t)
					if _, last := p.of(ecrOne); !last.IsZero() {
						t.Errorf("it was offline until %v", last)
					}
					setPresence(t, p, offline, true)
					<-time.After(time.Hour)
					online(p, reload)
					ended := time.Now()
					<-time.After(time.Hour)
					setPresence(t, p, ecrOne, false) // it is online already
					if now, last := p.of(ecrOne); now || !last.Equal(ended) {
						t.Errorf("offline now: %t, last at %v, want %v", now, last, ended)
					}
				})
			})
		}
	}
}

func TestStatusHasUpstreamsThatAreOfflineAndNotInUse(t *testing.T) {
	p, _ := testPresence(t, name.DockerHub)
	setPresence(t, p, ecrTwo, true)
	var got []string
	for _, st := range p.addTo([]upstream.Status{{Host: name.DockerHub, Offline: true, Auth: "bearer"}}) {
		if !st.Offline {
			t.Errorf("%+v", st)
		}
		got = append(got, st.Host+" "+st.Auth)
	}
	if want := []string{ecrTwo + " none", "docker.io bearer"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestMetricShowsWhichUpstreamsAreOffline(t *testing.T) {
	s, _ := serveInside(t, "  - {host: docker.io, offline: true}\n  - {host: quay.io}\n")
	got := make(map[string]float64)
	for _, m := range s.metrics(t)["larder_upstream_offline"].GetMetric() {
		for _, l := range m.GetLabel() {
			if l.GetName() == "upstream" {
				got[l.GetValue()] = m.GetGauge().GetValue()
			}
		}
	}
	if got["docker.io"] != 1 || got["quay.io"] != 0 || len(got) != 3 {
		t.Errorf("got %v", got)
	}
}

// A restart at sea must not begin to ask.
func TestDaemonDoesNotDialAnUpstreamThatIsOfflineByItsConfiguration(t *testing.T) {
	bell := guardtest.NewDoorbell(t)
	endpoint := "http://" + bell.Addr().String()
	file := writeConfig(t, fmt.Sprintf(`listen: 127.0.0.1:0
admin: ""
cache: {dir: cache, min_free: 0}
default_upstream: registry.test
upstreams:
  - {host: registry.test, endpoint: %q, offline: true}
  - {host: "*.dkr.ecr.*.amazonaws.com", offline: true}
`, endpoint))
	t.Setenv("AWS_ENDPOINT_URL", endpoint)
	t.Setenv("AWS_ACCESS_KEY_ID", "AKIDLARDERTEST")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "secret")
	for range 2 {
		cfg, err := config.Load(file)
		if err != nil {
			t.Fatal(err)
		}
		d, err := New(t.Context(), cfg, Options{})
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- d.Serve(ctx) }()
		for _, path := range []string{
			"app/manifests/v1", "app/tags/list", "app/blobs/" + digest.FromString("a").String(),
			"app/manifests/" + digest.FromString("a").String(), "app/referrers/" + digest.FromString("a").String(),
			ecrOne + "/app/manifests/v1", ecrTwo + "/app/tags/list", ecrTwo + "/app/blobs/" + digest.FromString("a").String(),
		} {
			w := httptest.NewRecorder()
			d.proxy.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "http://"+d.Addr().String()+"/v2/"+path, http.NoBody))
			if w.Code != http.StatusNotFound || !strings.Contains(w.Body.String(), "larder online ") {
				t.Errorf("%s: %d %s", path, w.Code, w.Body)
			}
		}
		stop()
		if err := errors.Join(<-ended, d.Close()); err != nil {
			t.Error(err)
		}
	}
	bell.WantNobody(t)
}

func TestCommandSetsUpstreamsOfflineAndOnlineAtOnce(t *testing.T) {
	s, _ := serveInside(t, "")
	image := s.addImage(t, "team/app", 1<<20)
	repo := cache.Repository{Upstream: s.ecr.Host(), Name: "team/app"}
	s.get(t, "/v2/team/app/manifests/v1")
	s.ecr.SetBandwidth(64 << 10)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+s.listen+"/v2/team/app/blobs/"+image.Blobs[0].Digest.String(), http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := s.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if err := s.daemon.setOffline("", true); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if n, err := io.Copy(io.Discard, resp.Body); err == nil {
		t.Errorf("%d bytes came, with no error", n)
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("the transfer went on for %v", took)
	}

	s.ecr.SetBandwidth(0)
	if err := s.daemon.store.PinAllPlatforms(repo, "v1"); err != nil {
		t.Fatal(err)
	}
	if missing, err := s.daemon.store.MissingPinned(); err != nil || len(missing) == 0 {
		t.Fatalf("nothing is missing of a pinned image of which only the manifest is here: %v", err)
	}
	if err := s.daemon.setOffline(s.ecr.Host(), false); err != nil {
		t.Fatal(err)
	}
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for deadline := time.After(patience); ; {
		if missing, err := s.daemon.store.MissingPinned(); err != nil || len(missing) == 0 {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal("what is missing of a pinned image is not fetched though its upstream is online")
		}
	}
}
