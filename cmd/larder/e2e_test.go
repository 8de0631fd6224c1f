package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/deploy/deploytest"
)

// A stack is what an end-to-end test runs: the binary that the image ships, in front of a fake ECR, each a process.
type stack struct {
	ecr    *fakeECR
	listen string // host:port for clients
	admin  string // host:port
	binary string
	config string // file
	cache  string // folder
	larder *process
}

// startStack starts a fake ECR and Larder with an empty cache, and waits until both are ready.
func startStack(t *testing.T) *stack {
	t.Helper()
	ecr := startFakeECR(t)
	s := newStack(t, fmt.Sprintf(`default_upstream: %s
upstreams:
  - host: %s
    endpoint: %s
    ecr: {api_endpoint: %s}
`, ecr.Host, ecr.Host, ecr.Endpoint, ecr.Endpoint))
	s.ecr = ecr
	s.startLarder(t)
	return s
}

// newStack configures a Larder with an empty cache, and these upstreams. Nothing runs yet.
func newStack(t *testing.T, upstreams string) *stack {
	t.Helper()
	return newStackAt(t, deploytest.FreeAddress(t), deploytest.FreeAddress(t), upstreams)
}

// newStackAt is newStack at addresses for clients and for admin. more is the rest of the configuration.
func newStackAt(t testing.TB, listen, admin, more string) *stack {
	t.Helper()
	binary, err := imageBinary()
	if err != nil {
		t.Fatal(err)
	}
	dir := shortTempDir(t) // the cache has a socket
	s := &stack{
		listen: listen,
		admin:  admin,
		binary: binary,
		config: filepath.Join(dir, "larder.yaml"),
		cache:  filepath.Join(dir, "cache"),
	}
	// The tag is fresh for so short a time that every pull revalidates it, or finds that it cannot.
	writeFile(t, s.config, fmt.Sprintf(`listen: %s
admin: %s
cache: {dir: %s, min_free: 0}
tags: {ttl: 1ms}
`, s.listen, s.admin, s.cache)+more)
	return s
}

// moveCache has the next start use another folder.
func (s *stack) moveCache(t *testing.T, dir string) {
	t.Helper()
	raw, err := os.ReadFile(s.config)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, s.config, strings.Replace(string(raw), s.cache, dir, 1))
	s.cache = dir
}

// bound gives the cache bounds, of which there are none otherwise, from the next start on.
func (s *stack) bound(t *testing.T, settings string) {
	t.Helper()
	raw, err := os.ReadFile(s.config)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, s.config, strings.Replace(string(raw), "min_free: 0", "min_free: 0, "+settings, 1))
}

// startLarder starts the binary and waits until it is ready.
func (s *stack) startLarder(t *testing.T) {
	t.Helper()
	s.larder = start(t, s.larderCommand(t))
	s.awaitReady(t)
}

// awaitReady waits until Larder is ready.
func (s *stack) awaitReady(t testing.TB) {
	t.Helper()
	client := &http.Client{Transport: transport(t)}
	s.larder.await(t, func(ctx context.Context) bool {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.admin+"/readyz", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := client.Do(req)
		if err != nil {
			return false
		}
		defer resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
}

// larderCommand is the daemon, with credentials that the fake ECR knows.
func (s *stack) larderCommand(t testing.TB) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(s.binary, "serve", "--config", s.config)
	cmd.Env = environ(t,
		"AWS_ACCESS_KEY_ID=AKIDLARDERTEST",
		"AWS_SECRET_ACCESS_KEY=secret",
		"AWS_EC2_METADATA_DISABLED=true",
	)
	return cmd
}

// restartLarder ends Larder as a service manager does, and starts it again on the same cache.
func (s *stack) restartLarder(t *testing.T) {
	t.Helper()
	if err := s.larder.stop(syscall.SIGTERM); err != nil {
		t.Errorf("larder was told to end: %v", err)
	}
	s.startLarder(t)
}

// pulledThroughDeadUpstream pulls the image with a client three times, each time one that holds nothing yet: cold,
// then with the upstream dead, then with Larder restarted and the upstream still dead. After the cold pull the upstream
// must have sent each byte once that a client of these platforms needs.
func pulledThroughDeadUpstream(t *testing.T, s *stack, platforms []string, pull func(*testing.T)) {
	t.Helper()
	if !t.Run("cold", pull) {
		return
	}
	s.requireEachByteOnce(t, platforms...)
	s.ecr.kill()
	t.Run("upstream dead", pull)
	s.restartLarder(t)
	t.Run("restarted with the upstream dead", pull)
}

// requireEachByteOnce fails the test unless the upstream sent the image's blobs for these platforms, each of them
// exactly once, and no byte of any other.
func (s *stack) requireEachByteOnce(t *testing.T, platforms ...string) {
	t.Helper()
	want := s.blobs(t, platforms...)
	if len(want) < 4 { // a config and three layers
		t.Fatalf("the image has only %d blobs for %v", len(want), platforms)
	}
	sent := s.ecr.stats(t).Blobs
	for d, size := range want {
		if got := sent[d].Bytes; got != size {
			t.Errorf("the upstream sent %d bytes of %s, want %d", got, d, size)
		}
	}
	for d, blob := range sent {
		if _, ok := want[d]; !ok && blob.Bytes > 0 {
			t.Errorf("the upstream sent %d bytes of %s, which no client needs", blob.Bytes, d)
		}
	}
}

// blobs returns the sizes of the image's configs and layers for these platforms.
func (s *stack) blobs(t *testing.T, platforms ...string) map[digest.Digest]int64 {
	t.Helper()
	sizes := make(map[digest.Digest]int64)
	for _, platform := range platforms {
		manifest, err := s.remoteImage(t, platform).Manifest()
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range append(manifest.Layers, manifest.Config) {
			sizes[digest.Digest(d.Digest.String())] = d.Size
		}
	}
	return sizes
}

// localPlatform is what a client of this machine pulls from an index.
func localPlatform() []string { return []string{"linux/" + runtime.GOARCH} }
