package main

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/larder-registry/larder/deploy/deploytest"
)

func TestPodmanPullsAndRunsAnImage(t *testing.T) {
	t.Parallel()
	podman := deploytest.Require(t, "podman")
	requireRoot(t, "podman")
	podmanDir(t) // a TMPDIR that is too long for podman skips the whole test
	s := startStack(t)
	pulledThroughDeadUpstream(t, s, localPlatform(), func(t *testing.T) {
		s.podmanPullAndRun(t, podman)
	})
}

// podmanPullAndRun pulls the image into an empty storage, and runs a container whose output must be that of the image's
// command.
func (s *stack) podmanPullAndRun(t *testing.T, podman string) {
	t.Helper()
	dir := podmanDir(t)
	// Low limits: podman's own default raises them, and not every machine that tests may do that.
	writeFile(t, filepath.Join(dir, "containers.conf"), `[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
[engine]
cgroup_manager = "cgroupfs"
events_logger = "none"
`)
	env := environ(t,
		"CONTAINERS_CONF="+filepath.Join(dir, "containers.conf"),
		"CONTAINERS_REGISTRIES_CONF="+s.registriesConf(t))
	global := []string{
		"--root", filepath.Join(dir, "root"),
		"--runroot", filepath.Join(dir, "runroot"),
		"--tmpdir", filepath.Join(dir, "tmp"),
		"--storage-driver", "vfs",
	}
	command := func(args ...string) string {
		return output(t, env, podman, append(global, args...)...)
	}
	command("pull", "--quiet", "--signature-policy", signaturePolicy(t), s.ecr.image())
	digests := command("image", "inspect", "--format", "{{.RepoDigests}}", s.ecr.image())
	if want := s.ecr.Image.Root.Digest.String(); !strings.Contains(digests, want) {
		t.Errorf("podman knows the image as %s, want %s", digests, want)
	}
	said := command("run", "--rm", "--pull", "never", "--network", "none", s.ecr.image())
	if strings.TrimSpace(said) != greeting {
		t.Errorf("the container said %q, want %q", said, greeting)
	}
}

// podmanDir is shortTempDir for podman, whose --runroot may have 50 characters at most.
func podmanDir(t *testing.T) string {
	t.Helper()
	dir := shortTempDir(t)
	if n := len(filepath.Join(dir, "runroot")); n > 50 {
		deploytest.Miss(t, "podman", fmt.Sprintf("TMPDIR is %d bytes too long for podman", n-50))
	}
	return dir
}

// registriesConf writes the configuration that sends podman and skopeo to Larder: it replaces the upstream's host with
// Larder's address and the upstream's host.
func (s *stack) registriesConf(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "registries.conf")
	writeFile(t, path, fmt.Sprintf(`unqualified-search-registries = []
[[registry]]
prefix = %q
location = "%s/%s"
insecure = true
`, s.ecr.Host, s.listen, s.ecr.Host))
	return path
}

// signaturePolicy writes a policy that takes images without signatures.
func signaturePolicy(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "policy.json")
	writeFile(t, path, `{"default": [{"type": "insecureAcceptAnything"}]}`)
	return path
}
