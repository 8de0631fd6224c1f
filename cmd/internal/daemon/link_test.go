package daemon

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/cache"
	"github.com/larder-registry/larder/cmd/internal/daemon/keep"
	"github.com/larder-registry/larder/config"
	"github.com/larder-registry/larder/upstream/ecrtest"
	"github.com/larder-registry/larder/upstream/link"
)

// reload has a daemon read another end of its configuration file.
func (s *inside) reload(t *testing.T, more string) {
	t.Helper()
	s.daemon.Reload(config.Load(writeConfig(t, strings.Replace(configFor(s.ecr), "dir: cache", "dir: "+s.cacheDir, 1)+more)))
}

// fetch fetches one blob in the background.
func (s *inside) fetch(t *testing.T, dgst digest.Digest) <-chan error {
	t.Helper()
	ended := make(chan error, 1)
	go func() {
		_, err := s.daemon.proxy.FetchBlob(cache.Unattended(t.Context()), cache.Repository{Upstream: s.ecr.Host(), Name: "team/app"}, dgst, 0)
		ended <- err
	}()
	return ended
}

// notNow are hours that begin in two.
func notNow() string {
	in := func(d time.Duration) string { return time.Now().Add(d).Format("15:04") }
	return fmt.Sprintf("%q", in(2*time.Hour)+"-"+in(3*time.Hour))
}

// awaitWaiting waits until a body waits for its turn.
func (s *inside) awaitWaiting(t *testing.T) {
	t.Helper()
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for deadline := time.After(patience); s.daemon.link.Status().Waiting == 0; {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal("nothing waits for the line")
		}
	}
}

// At the rate of the test's beginning its blobs would take hours.
func TestReloadChangesTheRateOfWhatRuns(t *testing.T) {
	s, _ := serveInside(t, "link: {rate: 10kB}\n")
	image := s.addImage(t, "team/app", 200<<20)
	ended := make(chan error, 1)
	s.get(t, "/v2/team/app/manifests/v1")
	go func() {
		resp, err := s.client.Get("http://" + s.listen + "/v2/team/app/blobs/" + image.Blobs[0].Digest.String())
		if err == nil {
			err = resp.Body.Close()
		}
		ended <- err
	}()
	if err := <-ended; err != nil { // a client that leaves changes nothing for the fill
		t.Fatal(err)
	}
	s.awaitWaiting(t)
	s.reload(t, "")
	s.get(t, "/v2/team/app/blobs/"+image.Blobs[0].Digest.String())
}

func TestBackgroundBecomesAClientsThroughTheWholeDaemon(t *testing.T) {
	s, _ := serveInside(t, "link: {background: {rate: 10kB}}\n")
	image := s.addImage(t, "team/app", 200<<20)
	s.get(t, "/v2/team/app/manifests/v1")
	blob := image.Blobs[0].Digest
	ended := s.fetch(t, blob)
	s.awaitWaiting(t)
	s.get(t, "/v2/team/app/blobs/"+blob.String())
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if st := s.daemon.link.Status(); st.Clients < 199<<20 || st.Unattended == 0 {
		t.Errorf("%d bytes are counted for clients, %d in the background", st.Clients, st.Unattended)
	}
	all := s.metrics(t)
	if n := value(all, "larder_link_bytes_total"); n < 200<<20 {
		t.Errorf("larder_link_bytes_total is %v", n)
	}
}

func TestBackgroundKeepsTheHoursOfTheConfiguration(t *testing.T) {
	s, _ := serveInside(t, "link: {background: {hours: "+notNow()+"}}\n")
	image := s.addImage(t, "team/app", 1<<20)
	s.get(t, "/v2/team/app/manifests/v1")
	blob := image.Blobs[0].Digest
	if err := <-s.fetch(t, blob); !errors.As(err, new(*link.ClosedError)) || !strings.Contains(err.Error(), "link.background.hours") {
		t.Errorf("outside of the hours: %v", err)
	}
	if err := s.daemon.client.FetchPostponed(s.ecr.Host()); !errors.As(err, new(*link.ClosedError)) {
		t.Errorf("pins and keep-alive are told %v", err)
	}
	if n := value(s.metrics(t), "larder_link_shut"); n != 1 {
		t.Errorf("larder_link_shut is %v", n)
	}
	s.get(t, "/v2/team/app/blobs/"+blob.String()) // a client does not wait for the hours
	other := s.addLayer(t, "team/app", 2<<20)
	s.reload(t, "")
	if err := <-s.fetch(t, other); err != nil {
		t.Errorf("without hours: %v", err)
	}
}

// addLayer puts another image into a repository of the fake, and returns the digest of its layer.
func (s *inside) addLayer(t *testing.T, repository string, n int64) digest.Digest {
	t.Helper()
	added, err := s.ecr.AddImage(repository, "v2", ecrtest.Image{Layers: []ecrtest.Layer{{Content: ecrtest.Random(2, n)}}})
	if err != nil {
		t.Fatal(err)
	}
	s.get(t, "/v2/"+repository+"/manifests/v2")
	return added.Blobs[0].Digest
}

func TestReloadAppliesWhatItCanAndNamesTheRest(t *testing.T) {
	s, _ := serveInside(t, "")
	s.reload(t, "link: {rate: 2MB}\ntags: {ttl: 5m}\ntelemetry: {sample_ratio: 1}\nlog: {level: debug}\n")
	if rate := s.daemon.link.Rules().Rate; rate != 2_000_000 {
		t.Errorf("the rate is %d", rate)
	}
	if !s.daemon.log.Enabled(t.Context(), -4) {
		t.Error("the log's level is not debug")
	}
	if !strings.Contains(s.log.String(), `keys="tags, telemetry"`) {
		t.Errorf("the log does not name the keys that need a restart:\n%s", s.log)
	}

	broken := writeConfig(t, "link: {rate: fast}\n")
	s.daemon.Reload(config.Load(broken))
	if rate := s.daemon.link.Rules().Rate; rate != 2_000_000 {
		t.Errorf("after a mistake the rate is %d", rate)
	}
	if n := value(s.metrics(t), "larder_config_reload_failures_total"); n != 1 {
		t.Errorf("larder_config_reload_failures_total is %v", n)
	}

	if err := s.daemon.setOffline("", true); err != nil {
		t.Fatal(err)
	}
	s.reload(t, "")
	if s.daemon.presence.isOffline(s.ecr.Host()) {
		t.Error("an upstream is offline after the configuration was read again")
	}
}

func TestReloadAppliesKeepAndTheKeysOfImports(t *testing.T) {
	s, _ := serveInside(t, "")
	s.addImage(t, "team/app", 1000)
	image, key := s.ecr.Host()+"/team/app:v1", t.TempDir()+"/fleet.pub"
	s.reload(t, "keep: [{images: ["+image+"], platforms: [all]}]\nimport: {verify: ["+key+"]}\n")
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for deadline := time.After(patience); s.daemon.keeper.Status(image).State != keep.Whole; {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("the image is not kept: %+v", s.daemon.keeper.Status(image))
		}
	}
	if keys := *s.daemon.importKeys.Load(); len(keys) != 1 || keys[0] != key {
		t.Errorf("bundles must be signed by %q", keys)
	}
	if log := s.log.String(); !strings.Contains(log, "hardly meant") || !strings.Contains(log, "fleet.pub does not exist") {
		t.Errorf("the log has no warning of the missing key:\n%s", log)
	}
	s.reload(t, "")
	if all := s.daemon.keeper.All(); len(all) > 0 || len(*s.daemon.importKeys.Load()) > 0 {
		t.Errorf("kept after the configuration has neither: %+v", all)
	}
}

func TestKeysThatNeedARestartAreNamed(t *testing.T) {
	load := func(content string) *config.Config {
		cfg, err := config.Load(writeConfig(t, content))
		if err != nil {
			t.Fatal(err)
		}
		cfg.Cache.Dir = os.TempDir()
		return cfg
	}
	base := "upstreams: [{host: docker.io}]\n"
	for changed, want := range map[string][]string{
		base: nil,
		base + "link: {rate: 1MB}\nlog: {level: debug}\n":        nil,
		"upstreams: [{host: docker.io, offline: true}]\n":        nil,
		base + "keep: [{images: [docker.io/library/redis:7]}]\n": nil,
		base + "import: {verify: [fleet.pub]}\n":                 nil,
		"upstreams: [{host: docker.io, timeout: 3s}]\n":          {"upstreams"},
		base + "tls: {cert: c, key: k}\nauth: {htpasswd: u}\n":   {"tls", "auth"},
		base + "listen: 127.0.0.1:6000\nlog: {format: json}\n":   {"listen", "log"},
		base + "default_upstream: \"\"\ncache: {min_free: 1%}\n": {"cache", "default_upstream"},
	} {
		if diff := cmp.Diff(want, restartKeys(load(base), load(changed))); diff != "" {
			t.Errorf("%s(-want +got):\n%s", changed, diff)
		}
	}
}
