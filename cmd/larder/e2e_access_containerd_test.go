package main

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/larder-registry/larder/deploy/deploytest"
)

// The kubelet sends the pull secret of a pod with each pull, also if the image is present and only the secret is to be
// checked (KEP-2535).
func TestPullSecretsDecideThroughCRI(t *testing.T) {
	t.Parallel()
	for name, config := range map[string]string{
		"containerd": `version = 2
[plugins."io.containerd.grpc.v1.cri".containerd]
  snapshotter = "native"
[plugins."io.containerd.grpc.v1.cri".registry]
  config_path = %q
`, "containerd2": `version = 3
[plugins."io.containerd.cri.v1.images"]
  snapshotter = "native"
[[plugins."io.containerd.transfer.v1.local".unpack_config]]
  platform = "linux/` + runtime.GOARCH + `"
  snapshotter = "native"
  differ = "walking"
[plugins."io.containerd.cri.v1.images".registry]
  config_path = %q
`} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for scheme, basic := range schemes() {
				t.Run(scheme, func(t *testing.T) {
					t.Parallel()
					c := startCRI(t, name, config)
					g := startGuarded(t, basic, ownHost)
					g.mirrorTo(t, c.hosts)
					for _, one := range accessCases() {
						t.Run(one.name, func(t *testing.T) {
							before := g.registry.Direct()
							_, err := c.pull(t, g.registry.Host+"/"+one.repository+":1.0", one.login)
							direct := g.registry.Direct() - before
							switch {
							case one.ok && err != nil:
								t.Error(err)
							case one.ok && direct > 0:
								t.Errorf("the registry itself was asked %d times", direct)
							case !one.ok && err == nil:
								t.Error("it is pulled")
							case !one.ok && direct == 0:
								t.Error("the registry itself was not asked")
							}
						})
					}
				})
			}
		})
	}
}

// mirrorTo writes a hosts.toml that has containerd ask Larder before the registry.
func (g *guardedStack) mirrorTo(t *testing.T, hosts string) {
	t.Helper()
	writeFile(t, filepath.Join(hosts, g.registry.Host, "hosts.toml"), fmt.Sprintf(`server = "http://%s"
[host."http://%s"]
  capabilities = ["pull", "resolve"]
`, g.registry.Host, g.listen))
}

// A cri is a containerd with its CRI plug-in.
type cri struct {
	crictl, address, hosts string
	env                    []string
}

// startCRI starts a containerd without content, whose configuration has one %q for the folder of hosts.toml files.
func startCRI(t *testing.T, program, config string) *cri {
	t.Helper()
	daemon := deploytest.Require(t, program)
	requireRoot(t, program)
	dir := t.TempDir()
	c := &cri{
		crictl:  deploytest.Require(t, "crictl"),
		address: filepath.Join(shortTempDir(t), "c.sock"),
		hosts:   filepath.Join(dir, "hosts"),
		env:     environ(t),
	}
	writeFile(t, filepath.Join(dir, "config.toml"), fmt.Sprintf(config, c.hosts)+fmt.Sprintf(`
[grpc]
  address = %q
[ttrpc]
  address = %q
[plugins."io.containerd.internal.v1.opt"]
  path = %q
`, c.address, c.address+".ttrpc", filepath.Join(dir, "opt")))
	cmd := exec.Command(daemon, "--config", filepath.Join(dir, "config.toml"), "--root", filepath.Join(dir, "root"), "--state", filepath.Join(dir, "state"))
	cmd.Env = c.env
	start(t, cmd).await(t, func(ctx context.Context) bool {
		cmd := exec.CommandContext(ctx, c.crictl, c.args("images")...)
		cmd.Env = c.env
		return cmd.Run() == nil
	})
	return c
}

func (c *cri) args(args ...string) []string {
	return append([]string{"--image-endpoint", "unix://" + c.address, "--runtime-endpoint", "unix://" + c.address}, args...)
}

// pull pulls an image as the kubelet does for a pod with an image pull secret.
func (c *cri) pull(t *testing.T, image string, l login) (string, error) {
	t.Helper()
	args := []string{"pull"}
	if l != (login{}) {
		args = append(args, "--creds", l.user+":"+l.password)
	}
	return tryRun(t, c.env, c.crictl, c.args(append(args, image)...)...)
}
