package main

import (
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

func TestContainerdFallsBackWhenTheMirrorIsGone(t *testing.T) {
	t.Parallel()
	requireContainerd(t)
	upstream := startOpenRegistry(t)
	first, second := upstream.push(t, "first"), upstream.push(t, "second")
	s := newStack(t, fmt.Sprintf("upstreams: [{host: %q, endpoint: %q}]\n", upstream.host, "http://"+upstream.host))
	s.startLarder(t)
	c := startEmptyContainerd(t)
	before := filepath.Join(c.hosts, "other.example", "hosts.toml")
	writeFile(t, before, "server = \"https://other.example\"\n")

	said := s.mirror(t, c)
	if want := "wrote " + filepath.Join(c.hosts, upstream.host, "hosts.toml"); !strings.Contains(said, want) {
		t.Errorf("larder mirror says %q, want %q", said, want)
	}
	c.pull(t, first)
	if direct := upstream.others.Swap(0); direct != 0 {
		t.Errorf("containerd asked the registry itself %d times", direct)
	}
	if checked := s.mirror(t, c, "--check", "--containerd-config", c.criConfig(t)); strings.Contains(checked, "✗") {
		t.Errorf("larder mirror --check says\n%s", checked)
	}

	if err := s.larder.stop(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	c.pull(t, second)
	if upstream.others.Load() == 0 {
		t.Error("the registry itself was not asked though Larder is gone")
	}

	s.mirror(t, c, "--remove")
	left, err := filepath.Glob(filepath.Join(c.hosts, "*", "*"))
	if err != nil || len(left) != 1 || left[0] != before {
		t.Errorf("--remove leaves %v, %v; before the mirror there was %s", left, err, before)
	}
	if folders, err := os.ReadDir(c.hosts); err != nil || len(folders) != 1 {
		t.Errorf("--remove leaves the folders %v, %v", folders, err)
	}
}

func TestContainerdWithOnlyNeverAsksTheRegistry(t *testing.T) {
	t.Parallel()
	requireContainerd(t)
	upstream := startOpenRegistry(t)
	first, second := upstream.push(t, "first"), upstream.push(t, "second")
	s := newStack(t, fmt.Sprintf("upstreams: [{host: %q, endpoint: %q}]\n", upstream.host, "http://"+upstream.host))
	s.startLarder(t)
	c := startEmptyContainerd(t)
	s.mirror(t, c, "--only")
	c.pull(t, first)
	if checked := s.mirror(t, c, "--only", "--check", "--containerd-config", c.criConfig(t)); strings.Contains(checked, "✗") || !strings.Contains(checked, "never asked") {
		t.Errorf("larder mirror --check says\n%s", checked)
	}
	if err := s.larder.stop(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if said, err := tryRun(t, c.env, c.ctr, "--address", c.address, "images", "pull", "--hosts-dir", c.hosts, "--snapshotter", snapshotter, second); err == nil {
		t.Errorf("without Larder a pull works: %s", said)
	}
	if direct := upstream.others.Load(); direct != 0 {
		t.Errorf("containerd asked the registry itself %d times", direct)
	}
}

// mirror runs larder mirror for a containerd, and returns what it prints.
func (s *stack) mirror(t *testing.T, c *containerd, args ...string) string {
	t.Helper()
	return output(t, environ(t), s.binary, append([]string{
		"mirror", "--config", s.config, "--containerd-dir", c.hosts, "--containerd-socket", c.address,
	}, args...)...)
}

// criConfig is a configuration with which the CRI of this containerd would read the same hosts.toml files. The tests
// have no CRI: they pull with ctr.
func (c *containerd) criConfig(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.toml")
	writeFile(t, path, fmt.Sprintf("version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".registry]\n  config_path = %q\n", c.hosts))
	return path
}

// An openRegistry is a registry without authentication, from which clients can pull without Larder.
type openRegistry struct {
	host   string
	others atomic.Int64 // requests by other clients than Larder, since the last push
}

func startOpenRegistry(t *testing.T) *openRegistry {
	t.Helper()
	r := &openRegistry{}
	handler := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.UserAgent() != "larder" {
			r.others.Add(1)
		}
		handler.ServeHTTP(w, req)
	}))
	t.Cleanup(server.Close)
	r.host = strings.TrimPrefix(server.URL, "http://")
	return r
}

// push puts an image into the registry, and returns its name.
func (r *openRegistry) push(t *testing.T, repository string) string {
	t.Helper()
	tag := r.host + "/" + repository + ":1.0"
	writeImage(t, tag, randomImage(t))
	r.others.Store(0)
	return tag
}

// randomImage makes an image for this machine.
func randomImage(t *testing.T) v1.Image {
	t.Helper()
	image, err := random.Image(1<<20, 2)
	if err == nil {
		image, err = mutate.ConfigFile(image, &v1.ConfigFile{OS: "linux", Architecture: runtime.GOARCH, RootFS: rootFS(t, image)})
	}
	if err != nil {
		t.Fatal(err)
	}
	return image
}

// writeImage pushes an image.
func writeImage(t *testing.T, tag string, image v1.Image) {
	t.Helper()
	reference, err := name.ParseReference(tag)
	if err == nil {
		err = remote.Write(reference, image, remoteOptions(t, transport(t))...)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func rootFS(t *testing.T, image v1.Image) v1.RootFS {
	t.Helper()
	config, err := image.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	return config.RootFS
}
