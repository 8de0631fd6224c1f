package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/larder-registry/larder/deploy/deploytest"
)

// carried is a Larder with two images in its cache, and a site without any.
type carried struct {
	from, site *stack
	// index has two platforms, and is from's own image. single has none.
	index, single         string
	indexRoot, singleRoot digest.Digest
	bundle                string // file with both
}

// startCarried starts a Larder and exports its images. The site's folder is there, and no daemon serves it.
func startCarried(t *testing.T) *carried {
	t.Helper()
	s := startStack(t)
	image := s.ecr.add(t, plainImage{Repository: "edge/app", Tag: "1", Seed: 1, Layers: []int64{1 << 10, 3 << 20}})
	requirePull(t, s.newPullers(t, 1), "edge/app", "1", image.Root.Digest)
	s.pullPlatforms(t, imageRepository, imageTag)
	s.restartLarder(t) // so that all of it is in the cache
	c := &carried{
		from: s, site: newSite(t, s.ecr.Host),
		index: s.ecr.image(), single: s.ecr.Host + "/edge/app:1", indexRoot: s.ecr.Image.Root.Digest, singleRoot: image.Root.Digest,
		bundle: filepath.Join(t.TempDir(), "bundle.tar"),
	}
	output(t, environ(t), s.binary, "export", "--config", s.config, "-o", c.bundle, c.index, c.single)
	return c
}

// newSite configures a Larder whose upstream is offline. Its folder is there and empty.
func newSite(t *testing.T, host string) *stack {
	t.Helper()
	site := newStack(t, fmt.Sprintf("default_upstream: %s\nupstreams: [{host: %s, endpoint: \"http://127.0.0.1:9\", offline: true}]\n", host, host))
	site.ecr = &fakeECR{}
	site.ecr.Host = host
	site.startLarder(t)
	site.stopLarder(t)
	return site
}

// stopLarder ends Larder as a service manager does.
func (s *stack) stopLarder(t *testing.T) {
	t.Helper()
	if err := s.larder.stop(syscall.SIGTERM); err != nil {
		t.Fatalf("larder was told to end: %v", err)
	}
}

// pullPlatforms pulls all platforms of an index.
func (s *stack) pullPlatforms(t *testing.T, repository, tag string) {
	t.Helper()
	raw, err := s.newPuller(t).manifest(t.Context(), repository, tag)
	if err != nil {
		t.Fatal(err)
	}
	var index ocispec.Index
	if err := json.Unmarshal(raw, &index); err != nil {
		t.Fatal(err)
	}
	for _, m := range index.Manifests {
		requirePull(t, s.newPullers(t, 1), repository, m.Digest.String(), m.Digest)
	}
}

// imported returns the digests of the images that a file brings to a new site, by their names, as "larder import" tells.
func (s *stack) imported(t *testing.T, file string, args ...string) map[string]digest.Digest {
	t.Helper()
	var report []imported
	out := output(t, environ(t), s.binary, append([]string{"import", "--json", "--config", s.config, file}, args...)...)
	if err := json.Unmarshal([]byte(out), &report); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	all := make(map[string]digest.Digest)
	for _, bundle := range report {
		for _, image := range bundle.Images {
			all[image.Name] = image.Digest
		}
	}
	return all
}

// The table in deploy/OPERATIONS.md has a row for each tool of the tests below.
func TestTableOfToolsIsTested(t *testing.T) {
	t.Parallel()
	raw, err := os.ReadFile(filepath.Join(repository, "deploy", "OPERATIONS.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(raw), "| tool | of a bundle | of the tool's own files |")
	table, _, _ = strings.Cut(table, "\n\n")
	for _, row := range []string{
		"skopeo 1.9 | `oci-archive:FILE:NAME`", "podman 4.3 | `podman pull oci-archive:FILE:NAME`",
		"containerd 1.6 and 2.4 | `ctr images import --no-unpack FILE`", "Docker 20.10 | `docker load`",
		"Docker 29 with containerd's storage | `docker load`",
	} {
		if !strings.Contains(table, "| "+row) {
			t.Errorf("the table has no row %q", row)
		}
	}
	if n := strings.Count(table, "\n| "); n != 5 {
		t.Errorf("the table has %d rows, and 5 tools are tested", n)
	}
}

func TestOtherToolsTakeABundle(t *testing.T) {
	t.Parallel()
	c := startCarried(t)
	t.Run("skopeo", func(t *testing.T) {
		t.Parallel()
		skopeo := deploytest.Require(t, "skopeo")
		for image, want := range map[string]digest.Digest{c.index: c.indexRoot, c.single: c.singleRoot} {
			dir := t.TempDir()
			output(t, environ(t), skopeo, "--policy", signaturePolicy(t), "copy", "--all", "oci-archive:"+c.bundle+":"+image, "dir:"+dir)
			if err := verifyFile(filepath.Join(dir, "manifest.json"), want); err != nil {
				t.Errorf("%s: %v", image, err)
			}
		}
	})
	t.Run("podman", func(t *testing.T) {
		t.Parallel()
		podman := deploytest.Require(t, "podman")
		requireRoot(t, "podman")
		env, global := podmanStorage(t)
		output(t, env, podman, append(global, "pull", "--quiet", "--signature-policy", signaturePolicy(t), "oci-archive:"+c.bundle+":"+c.index)...)
		got := output(t, env, podman, append(global, "image", "inspect", "--format", "{{.RepoTags}} {{.RepoDigests}}", c.index)...)
		if !hasLine(got, c.index, c.indexRoot.String()) {
			t.Errorf("%s is %s, want %s", c.index, got, c.indexRoot)
		}
	})
	for _, program := range containerds() {
		t.Run(program.daemon, func(t *testing.T) {
			t.Parallel()
			requireContainerd(t)
			ctr := program.start(t)
			output(t, ctr.env, ctr.ctr, "--address", ctr.address, "images", "import", "--no-unpack", c.bundle)
			list := output(t, ctr.env, ctr.ctr, "--address", ctr.address, "images", "ls")
			for image, want := range map[string]digest.Digest{c.index: c.indexRoot, c.single: c.singleRoot} {
				if !hasLine(list, image, want.String()) {
					t.Errorf("%s with %s is not in\n%s", image, want, list)
				}
			}
		})
	}
	t.Run("docker", func(t *testing.T) {
		t.Parallel()
		docker := deploytest.Require(t, "docker")
		requireRoot(t, "docker")
		deploytest.Require(t, "dockerd")
		// Docker takes images for one platform, with layers that are tars.
		bundle := filepath.Join(t.TempDir(), "docker.tar")
		output(t, environ(t), c.from.binary, "export", "--config", c.from.config, "-o", bundle, "--platform", "linux/amd64", c.index)
		socket := startBareDocker(t)
		output(t, environ(t), docker, "--host", socket, "load", "--input", bundle)
		id := output(t, environ(t), docker, "--host", socket, "image", "inspect", "--format", "{{.Id}} {{.RepoTags}}", c.index)
		if config := c.from.configOf(t, c.indexRoot, "amd64"); !strings.Contains(id, config.String()) {
			t.Errorf("it is %s, want %s", id, config)
		}
	})
	t.Run("dockerd2", func(t *testing.T) {
		t.Parallel()
		docker, socket := deploytest.Require(t, "docker"), startCurrentDocker(t, noDockerConfig(t))
		output(t, environ(t), docker, "--host", socket, "load", "--input", c.bundle)
		for image, want := range map[string]digest.Digest{c.index: c.indexRoot, c.single: c.singleRoot} {
			got := output(t, environ(t), docker, "--host", socket, "image", "inspect", "--format", "{{.Id}} {{.RepoTags}}", image)
			if !hasLine(got, image, want.String()) {
				t.Errorf("%s is %s, want %s", image, got, want)
			}
		}
	})
	t.Run("larder", func(t *testing.T) {
		t.Parallel()
		images := c.site.imported(t, c.bundle)
		if len(images) != 2 || images[c.index] != c.indexRoot || images[c.single] != c.singleRoot {
			t.Errorf("%v", images)
		}
		c.site.startLarder(t) // whose upstream is offline
		requirePull(t, c.site.newPullers(t, 1), "edge/app", "1", c.singleRoot)
		c.site.pullPlatforms(t, imageRepository, imageTag)
		second := filepath.Join(t.TempDir(), "second.tar")
		output(t, environ(t), c.site.binary, "export", "--config", c.site.config, "-o", second, c.index, c.single)
		requireSameFile(t, c.bundle, second)
	})
}

// hasLine reports whether a line of a text has all words.
func hasLine(text string, words ...string) bool {
	for line := range strings.Lines(text) {
		has := true
		for _, w := range words {
			has = has && strings.Contains(line, w)
		}
		if has {
			return true
		}
	}
	return false
}

func requireSameFile(t *testing.T, a, b string) {
	t.Helper()
	first, err := os.ReadFile(a)
	if err != nil {
		t.Fatal(err)
	}
	if second, err := os.ReadFile(b); err != nil || string(first) != string(second) {
		t.Errorf("%s and %s differ: %v", a, b, err)
	}
}

// configOf returns the configuration of a platform of an index in the cache.
func (s *stack) configOf(t *testing.T, index digest.Digest, architecture string) digest.Digest {
	t.Helper()
	read := func(d digest.Digest, v any) {
		raw, err := os.ReadFile(filepath.Join(s.cache, "blobs", d.Algorithm().String(), d.Encoded()[:2], d.Encoded()))
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(raw, v); err != nil {
			t.Fatal(err)
		}
	}
	var list ocispec.Index
	read(index, &list)
	for _, m := range list.Manifests {
		if m.Platform != nil && m.Platform.Architecture == architecture {
			var manifest ocispec.Manifest
			read(m.Digest, &manifest)
			return manifest.Config.Digest
		}
	}
	t.Fatalf("%s has no %s", index, architecture)
	return ""
}

// podmanStorage returns the environment and the first arguments of a podman with an empty storage.
func podmanStorage(t *testing.T) (env, global []string) {
	t.Helper()
	dir := podmanDir(t)
	writeFile(t, filepath.Join(dir, "containers.conf"), `[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
[engine]
cgroup_manager = "cgroupfs"
events_logger = "none"
`)
	env = environ(t, "CONTAINERS_CONF="+filepath.Join(dir, "containers.conf"))
	return env, []string{
		"--root", filepath.Join(dir, "root"), "--runroot", filepath.Join(dir, "runroot"), "--tmpdir", filepath.Join(dir, "tmp"),
		"--storage-driver", "vfs",
	}
}

// The names and digests of images that other tools write survive, where the tools keep them.
func TestBundlesOfOtherToolsAreImported(t *testing.T) {
	t.Parallel()
	c := startCarried(t)
	t.Run("skopeo", func(t *testing.T) {
		t.Parallel()
		skopeo := deploytest.Require(t, "skopeo")
		dir := t.TempDir()
		for form, file := range map[string]string{"oci-archive": "archive.tar", "oci": "folder"} {
			path := filepath.Join(dir, file)
			output(t, environ(t), skopeo, "--policy", signaturePolicy(t), "copy", "--all", "--preserve-digests",
				"oci-archive:"+c.bundle+":"+c.index, form+":"+path+":"+c.index)
			if got := newSite(t, c.from.ecr.Host).imported(t, path); got[c.index] != c.indexRoot || len(got) != 1 {
				t.Errorf("%s: %v, want %s", form, got, c.indexRoot)
			}
		}
	})
	for _, program := range containerds() {
		t.Run(program.daemon, func(t *testing.T) {
			t.Parallel()
			requireContainerd(t)
			ctr := program.start(t)
			output(t, ctr.env, ctr.ctr, "--address", ctr.address, "images", "import", "--no-unpack", "--all-platforms", c.bundle)
			path := filepath.Join(t.TempDir(), "exported.tar")
			output(t, ctr.env, ctr.ctr, "--address", ctr.address, "images", "export", "--all-platforms", path, c.index)
			if got := newSite(t, c.from.ecr.Host).imported(t, path); got[c.index] != c.indexRoot || len(got) != 1 {
				t.Errorf("%v, want %s", got, c.indexRoot)
			}
		})
	}
	t.Run("podman", func(t *testing.T) {
		t.Parallel()
		podman := deploytest.Require(t, "podman")
		requireRoot(t, "podman")
		env, global := podmanStorage(t)
		output(t, env, podman, append(global, "pull", "--quiet", "--signature-policy", signaturePolicy(t), "oci-archive:"+c.bundle+":"+c.index)...)
		path := filepath.Join(t.TempDir(), "saved.tar")
		output(t, env, podman, append(global, "save", "--quiet", "--format", "oci-archive", "--output", path, c.index)...)
		// podman packs the layers again: the name is the same, and the digest is not.
		if got := newSite(t, c.from.ecr.Host).imported(t, path); got[c.index] == "" || len(got) != 1 {
			t.Errorf("%v", got)
		}
	})
	t.Run("docker", func(t *testing.T) {
		t.Parallel()
		docker := deploytest.Require(t, "docker")
		requireRoot(t, "docker")
		deploytest.Require(t, "dockerd")
		bundle, saved := filepath.Join(t.TempDir(), "docker.tar"), filepath.Join(t.TempDir(), "saved.tar")
		output(t, environ(t), c.from.binary, "export", "--config", c.from.config, "-o", bundle, "--platform", "linux/amd64", c.index)
		socket := startBareDocker(t)
		output(t, environ(t), docker, "--host", socket, "load", "--input", bundle)
		output(t, environ(t), docker, "--host", socket, "save", "--output", saved, c.index)
		site := newSite(t, c.from.ecr.Host)
		_, err := tryRun(t, environ(t), site.binary, "import", "--config", site.config, saved)
		if err == nil || !strings.Contains(err.Error(), "skopeo copy docker-archive:") && !strings.Contains(err.Error(), "--as-local") {
			t.Errorf("an archive of Docker's own storage is imported: %v", err)
		}
	})
	t.Run("dockerd2", func(t *testing.T) {
		t.Parallel()
		docker, socket := deploytest.Require(t, "docker"), startCurrentDocker(t, noDockerConfig(t))
		saved := filepath.Join(t.TempDir(), "saved.tar")
		output(t, environ(t), docker, "--host", socket, "load", "--input", c.bundle)
		output(t, environ(t), docker, "--host", socket, "save", "--output", saved, c.index, c.single)
		got := newSite(t, c.from.ecr.Host).imported(t, saved)
		if len(got) != 2 || got[c.index] != c.indexRoot || got[c.single] != c.singleRoot {
			t.Errorf("%v, want %s and %s", got, c.indexRoot, c.singleRoot)
		}
	})
}
