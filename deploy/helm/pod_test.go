package helm

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/larder-registry/larder/deploy/deploytest"
)

const (
	containerTimeout = 30 * time.Second // for a container to end or to become ready on a busy machine
	pollInterval     = 20 * time.Millisecond
)

// TestPodInstallsServesAndRestores runs the pod's containers like a kubelet, but as processes on this machine: with their
// arguments, environment and users, and with the signal that ends them.
func TestPodInstallsServesAndRestores(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can run processes as other users")
	}
	larder := buildLarder(t)
	for name, values := range map[string]string{
		"keeper that waits":   "",
		"keeper that watches": "  watch: true\n  registries: [docker.io, quay.io]\n",
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t, larder)
			before := n.files(t, "certs.d")
			r := mustRender(t, n.values(t)+values)
			n.write(t, "etc-larder/larder.yaml", find[corev1.ConfigMap](t, r.manifests).Data["larder.yaml"])
			pod := find[appsv1.DaemonSet](t, r.manifests).Spec.Template.Spec

			for _, c := range pod.InitContainers {
				n.runToEnd(t, c)
			}
			if hosts := n.files(t, "certs.d")["quay.io/hosts.toml"]; !strings.Contains(hosts, "larder mirror: begin") {
				t.Errorf("the node's own file does not contain the mirror:\n%s", hosts)
			}

			ctx, stop := context.WithCancel(t.Context())
			defer stop()
			var running sync.WaitGroup
			for _, c := range pod.Containers {
				cmd, log := n.command(ctx, c)
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				running.Go(func() {
					err := cmd.Wait() // ctx.Err() if the signal ended it
					if cmd.ProcessState.ExitCode() != 0 {
						t.Errorf("%s: %v\n%s", c.Name, err, log)
					}
				})
			}
			for _, probe := range []*corev1.Probe{pod.Containers[0].StartupProbe, pod.Containers[0].ReadinessProbe, pod.Containers[0].LivenessProbe} {
				get := probe.HTTPGet
				n.await(t, fmt.Sprintf("http://%s%s", net.JoinHostPort(get.Host, get.Port.String()), get.Path))
			}
			for _, c := range find[corev1.Pod](t, r.hooks).Spec.Containers {
				n.runToEnd(t, c)
			}
			ls := pod.Containers[0] // as kubectl exec would run it
			ls.Args = []string{"ls"}
			n.runToEnd(t, ls)

			stop()
			running.Wait()
			if diff := cmp.Diff(before, n.files(t, "certs.d")); diff != "" {
				t.Errorf("containerd's files were not restored (-before +after):\n%s", diff)
			}
		})
	}
}

// buildLarder builds the command and returns its path. Every user can execute it.
func buildLarder(t *testing.T) string {
	t.Helper()
	path := filepath.Join(openFolder(t), "larder")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-o", path, "./cmd/larder")
	cmd.Dir = "../.."
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return path
}

// openFolder returns a temporary folder that every user can enter.
func openFolder(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Chmod(filepath.Dir(dir), 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// node is a folder with the files that the pod finds on a node.
type node struct{ larder, dir string }

func newNode(t *testing.T, larder string) node {
	t.Helper()
	n := node{larder, openFolder(t)}
	if err := os.Mkdir(filepath.Join(n.dir, "cache"), 0o755); err != nil { // like the kubelet: for root
		t.Fatal(err)
	}
	n.write(t, "certs.d/quay.io/hosts.toml", "server = \"https://quay.io\"\n\n[host.\"https://quay.example.com\"]\n")
	n.write(t, "config.toml", fmt.Sprintf("version = 3\n[plugins.\"io.containerd.cri.v1.images\".registry]\n  config_path = %q\n", n.dir+"/certs.d"))
	return n
}

func (n node) write(t *testing.T, name, text string) {
	t.Helper()
	path := filepath.Join(n.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// values returns the chart's values for this node. Their last section is mirror, so that a test can append keys to it.
func (n node) values(t *testing.T) string {
	t.Helper()
	return onlyImage + fmt.Sprintf(`
config:
  listen: %s
  admin: %s
  cache: {dir: %[3]s/cache, min_free: 0}
  upstreams: [{host: docker.io}, {host: quay.io}]
mirror:
  containerdDir: %[3]s/certs.d
  containerdConfig: %[3]s/config.toml
  containerdSocket: %[3]s/containerd.sock
`, deploytest.FreeAddress(t), deploytest.FreeAddress(t), n.dir)
}

// command returns the process of a container and its output. When ctx ends, the process gets SIGTERM, as from a kubelet.
func (n node) command(ctx context.Context, c corev1.Container) (cmd *exec.Cmd, log *strings.Builder) {
	cmd, log = exec.CommandContext(ctx, n.larder, c.Args...), new(strings.Builder)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = containerTimeout
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = []string{"LARDER_CACHE_DIR=/var/lib/larder"} // from the Dockerfile
	for _, e := range c.Env {
		if e.ValueFrom == nil {
			cmd.Env = append(cmd.Env, e.Name+"="+strings.Replace(e.Value, "/etc/larder/", n.dir+"/etc-larder/", 1))
		} else if e.ValueFrom.ResourceFieldRef.Resource == "requests.memory" {
			cmd.Env = append(cmd.Env, fmt.Sprintf("%s=%d", e.Name, c.Resources.Requests.Memory().Value()))
		}
	}
	s := c.SecurityContext
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(*s.RunAsUser), Gid: uint32(*s.RunAsGroup)}}
	return cmd, log
}

func (n node) runToEnd(t *testing.T, c corev1.Container) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), containerTimeout)
	defer cancel()
	cmd, log := n.command(ctx, c)
	if err := cmd.Run(); err != nil {
		t.Errorf("%s %q: %v\n%s", c.Name, c.Args, err, log)
	}
}

// await waits until a URL answers 200.
func (n node) await(t *testing.T, url string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), containerTimeout)
	defer cancel()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		resp, err := client.Do(req)
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return
			}
			err = fmt.Errorf("status %s", resp.Status)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("%s: %v", url, err)
		}
	}
}

// files returns the contents of all files below a folder, by relative path.
func (n node) files(t *testing.T, name string) map[string]string {
	t.Helper()
	dir := filepath.Join(n.dir, name)
	found := make(map[string]string)
	err := filepath.WalkDir(dir, func(path string, entry os.DirEntry, err error) error {
		if err == nil && !entry.IsDir() {
			text, err := os.ReadFile(path)
			found[strings.TrimPrefix(path, dir+"/")] = string(text)
			return err
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}
