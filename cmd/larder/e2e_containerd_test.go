package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/larder-registry/larder/deploy/deploytest"
)

// A containerd is a daemon with its own folders and sockets.
type containerd struct {
	ctr     string
	address string // of its socket
	hosts   string // folder with a hosts.toml for each registry
	fifos   string
	// container is the name of its only container. runc's state and the cgroup have this name for the whole machine.
	container string
	env       []string
}

// snapshotter is one that works on every file system, also if the tests run in a container.
const snapshotter = "native"

func TestContainerdPullsAndRunsAnImage(t *testing.T) {
	t.Parallel()
	requireContainerd(t)
	s := startStack(t)
	pulledThroughDeadUpstream(t, s, localPlatform(), func(t *testing.T) {
		s.startContainerd(t).pullAndRun(t, s.ecr.image())
	})
}

func TestContainerdPullsThroughAnUpstreamThatBreaksOff(t *testing.T) {
	t.Parallel()
	requireContainerd(t)
	s := startStack(t)
	s.ecr.breakOff(t)
	s.startContainerd(t).pullAndRun(t, s.ecr.image())
}

// requireContainerd requires the programs that running a container needs, such as containerd's shim.
func requireContainerd(t *testing.T) {
	t.Helper()
	deploytest.Require(t, "containerd")
	requireRoot(t, "containerd")
	for _, program := range []string{"ctr", "runc", "containerd-shim-runc-v2"} {
		if _, err := exec.LookPath(program); err != nil {
			deploytest.Miss(t, "containerd", "containerd is installed without "+program)
		}
	}
}

// startContainerd starts a daemon without content that asks Larder before the upstream.
func (s *stack) startContainerd(t *testing.T) *containerd {
	t.Helper()
	c := startEmptyContainerd(t)
	s.mirrorFor(t, c)
	return c
}

// mirrorFor has a containerd ask Larder before the upstream.
func (s *stack) mirrorFor(t *testing.T, c *containerd) {
	t.Helper()
	writeFile(t, filepath.Join(c.hosts, s.ecr.Host, "hosts.toml"), fmt.Sprintf(`server = "https://%s"
[host."http://%s"]
  capabilities = ["pull", "resolve"]
`, s.ecr.Host, s.listen))
}

// containerdPrograms are those of a release.
type containerdPrograms struct{ daemon, ctr string }

// containerds are Debian's containerd, and the current one.
func containerds() []containerdPrograms {
	return []containerdPrograms{{"containerd", "ctr"}, {"containerd2", "ctr2"}}
}

// startEmptyContainerd starts Debian's daemon without content and without a mirror.
func startEmptyContainerd(t *testing.T) *containerd {
	t.Helper()
	return containerds()[0].start(t)
}

// start starts a daemon without content and without a mirror.
func (p containerdPrograms) start(t *testing.T) *containerd {
	t.Helper()
	return p.startWith(t, "")
}

// startWith is start with more configuration, and more of an environment.
func (p containerdPrograms) startWith(t *testing.T, more string, env ...string) *containerd {
	t.Helper()
	dir := t.TempDir()
	c := &containerd{
		ctr:       deploytest.Require(t, p.ctr),
		address:   filepath.Join(shortTempDir(t), "c.sock"),
		hosts:     filepath.Join(dir, "hosts"),
		fifos:     filepath.Join(dir, "fifo"),
		container: "larder-e2e-" + rand.Text(),
		env:       environ(t, env...),
	}
	writeFile(t, filepath.Join(dir, "config.toml"), fmt.Sprintf(`version = 2
root = %q
state = %q
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime"]
[grpc]
  address = %q
[ttrpc]
  address = %q
[plugins."io.containerd.internal.v1.opt"]
  path = %q
`, filepath.Join(dir, "root"), filepath.Join(dir, "state"), c.address, c.address+".ttrpc", filepath.Join(dir, "opt"))+more)
	cmd := exec.Command(deploytest.Require(t, p.daemon), "--config", filepath.Join(dir, "config.toml"))
	cmd.Env = c.env
	daemon := start(t, cmd)
	daemon.await(t, func(ctx context.Context) bool {
		cmd := exec.CommandContext(ctx, c.ctr, "--address", c.address, "version")
		cmd.Env = c.env
		return cmd.Run() == nil
	})
	t.Cleanup(c.removeContainer)
	return c
}

// pullAndRun pulls and unpacks an image, and runs a container whose output must be that of the image's command.
func (c *containerd) pullAndRun(t *testing.T, image string) {
	t.Helper()
	c.pull(t, image)
	said := output(t, c.env, c.ctr, "--address", c.address,
		"run", "--rm", "--snapshotter", snapshotter, "--fifo-dir", c.fifos, image, c.container)
	if strings.TrimSpace(said) != greeting {
		t.Errorf("the container said %q, want %q", said, greeting)
	}
}

// pull pulls and unpacks an image.
func (c *containerd) pull(t *testing.T, image string) {
	t.Helper()
	output(t, c.env, c.ctr, "--address", c.address,
		"images", "pull", "--hosts-dir", c.hosts, "--snapshotter", snapshotter, image)
}

// removeContainer removes the container that a failed test left: one that outlives its daemon holds mounts in the
// daemon's folders.
func (c *containerd) removeContainer() {
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	for _, args := range [][]string{
		{"tasks", "delete", "--force", c.container},
		{"containers", "delete", c.container},
	} {
		cmd := exec.CommandContext(ctx, c.ctr, append([]string{"--address", c.address}, args...)...)
		cmd.Env = c.env
		_ = cmd.Run() // after success there is none
	}
}

// writeFile writes a file and the folders above it.
func writeFile(t testing.TB, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}
