package main

import (
	"context"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/larder-registry/larder/deploy/deploytest"
)

// startBareDocker starts a dockerd without content and without a mirror, and returns its socket.
func startBareDocker(t *testing.T) (socket string) {
	t.Helper()
	return startDockerd(t, deploytest.Require(t, "dockerd"), deploytest.Require(t, "docker"), noDockerConfig(t))
}

// startDockerd starts Debian's dockerd without content, which keeps images in its own storage, and returns its socket.
func startDockerd(t *testing.T, daemon, docker, config string) (socket string) {
	t.Helper()
	return startDockerdWith(t, daemon, docker, config, "--storage-driver", "vfs")
}

// startCurrentDocker starts a current dockerd without content, which keeps images in a containerd, and returns its socket.
func startCurrentDocker(t *testing.T, config string) (socket string) {
	t.Helper()
	daemon, docker := deploytest.Require(t, "dockerd2"), deploytest.Require(t, "docker")
	requireRoot(t, "dockerd2")
	return startDockerdWith(t, daemon, docker, config, "--storage-driver", snapshotter, "--containerd", containerds()[1].start(t).address)
}

// noDockerConfig is the path of a daemon.json that says nothing.
func noDockerConfig(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "daemon.json")
	writeFile(t, path, "{}")
	return path
}

// startDockerdWith starts a dockerd without content with further arguments, and returns its socket.
func startDockerdWith(t *testing.T, daemon, docker, config string, arguments ...string) (socket string) {
	t.Helper()
	dir := shortTempDir(t)
	socket = "unix://" + filepath.Join(dir, "d.sock")
	cmd := exec.Command(daemon, append(arguments, "--config-file", config, "--host", socket,
		"--data-root", filepath.Join(dir, "data"), "--exec-root", filepath.Join(dir, "exec"), "--pidfile", filepath.Join(dir, "pid"),
		"--bridge=none", "--iptables=false", "--ip6tables=false")...)
	cmd.Env = environ(t, "DOCKER_MIN_API_VERSION=1.41") // of Debian's client
	start(t, cmd).await(t, func(ctx context.Context) bool {
		cmd := exec.CommandContext(ctx, docker, "--host", socket, "version")
		cmd.Env = environ(t)
		return cmd.Run() == nil
	})
	return socket
}
