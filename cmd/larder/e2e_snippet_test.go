package main

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/larder-registry/larder/deploy/deploytest"
)

func TestDockerPullsWithThePrintedConfiguration(t *testing.T) {
	t.Parallel()
	daemon, docker := deploytest.Require(t, "dockerd"), deploytest.Require(t, "docker")
	requireRoot(t, "dockerd")
	upstream := startOpenRegistry(t)
	upstream.push(t, "library/first")
	s := newStack(t, fmt.Sprintf("default_upstream: docker.io\nupstreams: [{host: docker.io, endpoint: %q}]\n", "http://"+upstream.host))
	s.startLarder(t)
	socket := s.startDocker(t, daemon, docker)
	said := output(t, environ(t), docker, "--host", socket, "pull", "first:1.0")
	if !strings.Contains(said, "Status: Downloaded newer image for first:1.0") {
		t.Errorf("docker says\n%s", said)
	}
}

// startDocker starts a dockerd of its own, configured by what "larder mirror --for docker" prints, and returns its
// socket.
func (s *stack) startDocker(t *testing.T, daemon, docker string) (socket string) {
	t.Helper()
	config := filepath.Join(t.TempDir(), "daemon.json")
	writeFile(t, config, uncommented(s.snippet(t, "docker")))
	return startDockerd(t, daemon, docker, config)
}

// startDockerd starts a dockerd without content, and returns its socket.
func startDockerd(t *testing.T, daemon, docker, config string) (socket string) {
	t.Helper()
	dir := shortTempDir(t)
	socket = "unix://" + filepath.Join(dir, "d.sock")
	cmd := exec.Command(daemon, "--config-file", config, "--host", socket,
		"--data-root", filepath.Join(dir, "data"), "--exec-root", filepath.Join(dir, "exec"), "--pidfile", filepath.Join(dir, "pid"),
		"--storage-driver", "vfs", "--bridge=none", "--iptables=false", "--ip6tables=false")
	cmd.Env = environ(t)
	start(t, cmd).await(t, func(ctx context.Context) bool {
		cmd := exec.CommandContext(ctx, docker, "--host", socket, "version")
		cmd.Env = environ(t)
		return cmd.Run() == nil
	})
	return socket
}

func TestPodmanPullsWithThePrintedConfiguration(t *testing.T) {
	t.Parallel()
	podman := deploytest.Require(t, "podman")
	requireRoot(t, "podman")
	upstream := startOpenRegistry(t)
	upstream.push(t, "first")
	s := newStack(t, fmt.Sprintf("upstreams: [{host: registry.example, endpoint: %q}]\n", "http://"+upstream.host))
	s.startLarder(t)
	dir := podmanDir(t)
	conf := filepath.Join(dir, "registries.conf")
	writeFile(t, conf, s.snippet(t, "podman"))
	output(t, environ(t, "CONTAINERS_REGISTRIES_CONF="+conf), podman,
		"--root", filepath.Join(dir, "root"), "--runroot", filepath.Join(dir, "runroot"), "--tmpdir", filepath.Join(dir, "tmp"),
		"--storage-driver", "vfs", "pull", "--quiet", "--signature-policy", signaturePolicy(t), "registry.example/first:1.0")
}

// snippet is what larder mirror prints for another runtime.
func (s *stack) snippet(t *testing.T, runtime string) string {
	t.Helper()
	return output(t, environ(t), s.binary, "mirror", "--config", s.config, "--for", runtime)
}

// uncommented leaves out the lines that are for people.
func uncommented(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, "#") {
			b.WriteString(line)
		}
	}
	return b.String()
}
