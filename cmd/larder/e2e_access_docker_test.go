package main

import (
	"fmt"
	"path/filepath"
	"testing"

	"github.com/larder-registry/larder/deploy/deploytest"
	"github.com/larder-registry/larder/upstream/privatetest"
)

// dockerHubKey is under which Docker has the login for Docker Hub.
const dockerHubKey = "https://index.docker.io/v1/"

// A classic Docker sends its login for Docker Hub to a mirror whose ping is challenged. If another upstream is the reason
// for the challenge, Docker Hub is not asked with it, and the node's own rights hold.
func TestLoginForDockerHubIsDroppedForANodeUpstream(t *testing.T) {
	t.Parallel()
	hub := privatetest.Start(t, false)
	hub.AddUser(privatetest.Anonymous, "", "library/first")
	hub.AddUser("alice", alicePassword, "library/first")
	hub.PushImage(t, "library/first", "1.0", randomImage(t))
	g := startGuardedWith(t, false, guardedHost, fmt.Sprintf("  - {host: docker.io, endpoint: %q}\ndefault_upstream: docker.io\n", hub.URL))
	socket, docker := g.startMirroredDocker(t)
	for _, password := range []string{alicePassword, "wrong"} {
		l := login{user: "alice", password: password}
		if _, err := tryRun(t, environ(t), docker, "--config", l.authFile(t, dockerHubKey), "--host", socket, "pull", "--quiet", "first:1.0"); err != nil {
			t.Error(err)
		}
	}
	if n := hub.Direct(); n > 0 {
		t.Errorf("Docker asked the registry itself %d times", n)
	}
	for q := range hub.Asked() {
		if q.User == "alice" {
			t.Errorf("the login came to the upstream: %+v", q)
		}
	}
}

// Where Docker Hub is an upstream whose clients' rights decide, Docker's login for it does.
func TestLoginForDockerHubDecidesThroughTheMirror(t *testing.T) {
	t.Parallel()
	g := startGuardedWith(t, false, func(*privatetest.Registry) string { return "docker.io" }, "default_upstream: docker.io\n")
	socket, docker := g.startMirroredDocker(t)
	for _, one := range accessCases() {
		if !one.ok { // Docker would go to the real Docker Hub
			continue
		}
		t.Run(one.name, func(t *testing.T) {
			_, err := tryRun(t, environ(t), docker, "--config", one.login.authFile(t, dockerHubKey), "--host", socket,
				"pull", "--quiet", one.repository+":1.0")
			if err != nil {
				t.Error(err)
			}
		})
	}
	if n := g.registry.Direct(); n > 0 {
		t.Errorf("Docker asked the registry itself %d times", n)
	}
}

// startMirroredDocker starts a dockerd without content whose mirror of Docker Hub is Larder.
func (g *guardedStack) startMirroredDocker(t *testing.T) (socket, docker string) {
	t.Helper()
	daemon, docker := deploytest.Require(t, "dockerd"), deploytest.Require(t, "docker")
	requireRoot(t, "dockerd")
	config := filepath.Join(t.TempDir(), "daemon.json")
	writeFile(t, config, fmt.Sprintf(`{"registry-mirrors": ["http://%s"]}`, g.listen))
	return startDockerd(t, daemon, docker, config), docker
}
