package main

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/larder-registry/larder/deploy/deploytest"
)

func TestDockerPullsWithThePrintedConfiguration(t *testing.T) {
	t.Parallel()
	for _, daemon := range []string{"dockerd", "dockerd2"} {
		t.Run(daemon, func(t *testing.T) {
			t.Parallel()
			deploytest.Require(t, daemon)
			docker := deploytest.Require(t, "docker")
			requireRoot(t, daemon)
			upstream := startOpenRegistry(t)
			upstream.push(t, "library/first")
			s := newStack(t, fmt.Sprintf("default_upstream: docker.io\nupstreams: [{host: docker.io, endpoint: %q}]\n", "http://"+upstream.host))
			s.startLarder(t)
			config := filepath.Join(t.TempDir(), "daemon.json")
			writeFile(t, config, uncommented(s.snippet(t, "docker")))
			var socket string
			if daemon == "dockerd" {
				socket = startDockerd(t, daemon, docker, config)
			} else {
				socket = startCurrentDocker(t, config)
			}
			said := output(t, environ(t), docker, "--host", socket, "pull", "first:1.0")
			if !strings.Contains(said, "Status: Downloaded newer image for first:1.0") {
				t.Errorf("docker says\n%s", said)
			}
		})
	}
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
