package main

import (
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/google/go-containerregistry/pkg/registry"

	"github.com/larder-registry/larder/deploy/deploytest"
)

// status is that of an answer to a GET of a manifest.
func (s *stack) status(t *testing.T, repository, reference string) int {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet,
		"http://"+s.listen+"/v2/"+repository+"/manifests/"+reference+"?ns="+clientsUpstream, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := (&http.Client{Transport: transport(t)}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode
}

// Images that cosign and notation have signed are served by the rules that they verify by, and unsigned ones are not: over
// lists of referrers and over tags, while the upstream answers and without it. The programs verify through Larder.
func TestPolicyServesWhatSignersVerify(t *testing.T) {
	t.Parallel()
	for _, kind := range []struct {
		name string
		api  bool
	}{{"referrers API", true}, {"tags", false}} {
		for _, s := range signers() {
			t.Run(kind.name+"/"+s.name, func(t *testing.T) {
				var failing atomic.Bool // for what is asked about signatures
				content := registry.New(registry.WithReferrersSupport(kind.api), registry.Logger(log.New(io.Discard, "", 0)))
				upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if failing.Load() && (strings.Contains(r.URL.Path, "/referrers/") || strings.Contains(r.URL.Path, "/manifests/sha256-")) {
						w.WriteHeader(http.StatusInternalServerError)
						return
					}
					content.ServeHTTP(w, r)
				}))
				t.Cleanup(upstream.Close)
				host := strings.TrimPrefix(upstream.URL, "http://")
				image := randomImage(t)
				writeImage(t, host+"/team/app:signed", image)
				writeImage(t, host+"/team/app:unsigned", randomImage(t))
				writeImage(t, host+"/team/app:later", randomImage(t))
				writeImage(t, host+"/other/app:signed", image)
				digest, err := image.Digest()
				if err != nil {
					t.Fatal(err)
				}
				by := s.sign(t, host+"/team/app@"+digest.String())
				stack := newStack(t, fmt.Sprintf(`upstreams: [{host: %s, endpoint: %q}]
policy:
  - {match: "%[1]s/team/*", mode: enforce, signed: %[3]s}
  - {match: "%[1]s/other/*", mode: enforce, signed: %[4]s}
`, clientsUpstream, upstream.URL, by.condition, by.wrongCondition))
				stack.startLarder(t)
				want := func(when, repository, reference string, status int) {
					t.Helper()
					if got := stack.status(t, repository, reference); got != status {
						t.Errorf("%s: %s:%s is answered with %d, want %d", when, repository, reference, got, status)
					}
				}
				want("at first", "team/app", "signed", http.StatusOK)
				want("at first", "team/app", "unsigned", http.StatusForbidden)
				want("with another key", "other/app", "signed", http.StatusForbidden)
				if err := by.verify(t, stack.listen+"/"+clientsUpstream+"/team/app:signed"); err != nil {
					t.Errorf("through Larder: %v", err)
				}
				failing.Store(true)
				want("while signatures cannot be asked for", "team/app", "later", http.StatusServiceUnavailable)
				want("while signatures cannot be asked for", "team/app", "signed", http.StatusOK)
				if err := stack.larder.stop(syscall.SIGTERM); err != nil {
					t.Fatal(err)
				}
				upstream.Close()
				stack.startLarder(t)
				want("after a restart without the upstream", "team/app", "signed", http.StatusOK)
				want("after a restart without the upstream", "team/app", "unsigned", http.StatusForbidden)
			})
		}
	}
}

// containerd 2 gets the bytes from the registry itself, and asks the verifier before it uses them.
func TestContainerdAsksTheVerifier(t *testing.T) {
	t.Parallel()
	deploytest.Require(t, "containerd2")
	requireRoot(t, "containerd2")
	upstream := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(upstream.Close)
	host := strings.TrimPrefix(upstream.URL, "http://")
	for _, repository := range []string{"team/app", "other/app"} {
		writeImage(t, host+"/"+repository+":1.0", randomImage(t))
	}
	s := newStack(t, fmt.Sprintf(`upstreams: [{host: %s, endpoint: %q}]
policy: [{match: "%[1]s/team/*", mode: enforce, age: 100h}]
`, clientsUpstream, upstream.URL))
	s.startLarder(t)
	verifiers := t.TempDir()
	if err := os.Symlink(s.binary, filepath.Join(verifiers, verifierCommand)); err != nil {
		t.Fatal(err)
	}
	more := fmt.Sprintf("[plugins.\"io.containerd.image-verifier.v1.bindir\"]\n  bin_dir = %q\n"+
		"[[plugins.\"io.containerd.transfer.v1.local\".unpack_config]]\n  platform = %q\n  snapshotter = %q\n", verifiers, localPlatform()[0], snapshotter)
	c := containerds()[1].startWith(t, more, "LARDER_CONFIG="+s.config)
	writeFile(t, filepath.Join(c.hosts, clientsUpstream, "hosts.toml"), fmt.Sprintf("server = %q\n", upstream.URL))
	pull := func(image string) error {
		_, err := tryRun(t, c.env, c.ctr, "--address", c.address, "images", "pull", "--hosts-dir", c.hosts, "--snapshotter", snapshotter, image)
		return err
	}
	check := func(when, reason string) {
		t.Helper()
		if err := pull(clientsUpstream + "/team/app:1.0"); err == nil || !strings.Contains(err.Error(), reason) {
			t.Errorf("%s: an image that a rule refuses: %v, want %q", when, err, reason)
		}
		if err := pull(clientsUpstream + "/other/app:1.0"); err != nil {
			t.Errorf("%s: an image that no rule covers: %v", when, err)
		}
	}
	check("with the daemon", "must be 100h old")
	if err := s.larder.stop(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	check("without the daemon", "no daemon runs that could decide")
}
