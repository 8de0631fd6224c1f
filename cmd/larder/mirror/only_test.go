package mirror

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func only(m Mirror) Mirror {
	m.Only = true
	return m
}

func TestOnlyLarderIsTheServer(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "quay.io", "hosts.toml"), foreignFile)
	write(t, filepath.Join(dir, "docker.io", "ca.crt"), "c")
	install(t, dir, only(Mirror{URL: larder, Registries: []string{"docker.io", "quay.io"}, Default: true, Containerd: Version{2, 2}}))
	want := blockBegin + "\nserver = \"http://127.0.0.1:5000\"\ncapabilities = [\"pull\", \"resolve\", \"referrers\"]\ndial_timeout = \"2s\"\n\n" +
		"[host.\"http://127.0.0.1:5000\"]\n  capabilities = [\"pull\", \"resolve\", \"referrers\"]\n  dial_timeout = \"2s\"\n" + blockEnd + "\n"
	files := tree(t, dir)
	for path, head := range map[string]string{
		"docker.io/hosts.toml": newFileMark + "\n\n", // a CA of the registry would have containerd try Larder over https
		"quay.io/hosts.toml":   newFileMark + "\n\n",
		"_default/hosts.toml":  newFileMark + "\n" + newFolderMark + "\n\n",
	} {
		if diff := cmp.Diff(head+want, files[path]); diff != "" {
			t.Errorf("%s (-want +got):\n%s", path, diff)
		}
	}
}

func TestOnlyAndBackLosesNothing(t *testing.T) {
	m := Mirror{URL: larder, Registries: []string{"quay.io", "docker.io"}, Default: true}
	edit := func(t *testing.T, dir string) {
		t.Helper()
		path := filepath.Join(dir, "quay.io", "hosts.toml")
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		write(t, path, strings.Replace(string(text), "X-Team", "X-Group", 1))
	}
	for name, steps := range map[string]func(t *testing.T, dir string){
		"only":                     func(t *testing.T, dir string) { install(t, dir, only(m)) },
		"only twice":               func(t *testing.T, dir string) { install(t, dir, only(m)); install(t, dir, only(m)) },
		"with a fallback, only":    func(t *testing.T, dir string) { install(t, dir, m); install(t, dir, only(m)) },
		"only, with a fallback":    func(t *testing.T, dir string) { install(t, dir, only(m)); install(t, dir, m) },
		"there and back and there": func(t *testing.T, dir string) { install(t, dir, only(m)); install(t, dir, m); install(t, dir, only(m)) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			write(t, filepath.Join(dir, "quay.io", "hosts.toml"), foreignFile)
			before := tree(t, dir)
			steps(t, dir)
			uninstall(t, dir)
			if diff := cmp.Diff(before, tree(t, dir)); diff != "" {
				t.Error(diff)
			}
		})
	}
	t.Run("an edit in between", func(t *testing.T) {
		dir := t.TempDir()
		write(t, filepath.Join(dir, "quay.io", "hosts.toml"), foreignFile)
		install(t, dir, m)
		edit(t, dir)
		install(t, dir, only(m))
		uninstall(t, dir)
		if got, want := tree(t, dir)["quay.io/hosts.toml"], strings.Replace(foreignFile, "X-Team", "X-Group", 1); got != want {
			t.Errorf("the edited file is now %q", got)
		}
	})
}

// uninstall removes the mirror from a folder.
func uninstall(t *testing.T, dir string) {
	t.Helper()
	if _, err := Remove(dir); err != nil {
		t.Fatal(err)
	}
}

func TestCheckTellsWhichKindANodeHas(t *testing.T) {
	find := func(t *testing.T, c *checked, what string) (ok bool) {
		t.Helper()
		for _, f := range Check(t.Context(), c.Mirror, c.Node) {
			if strings.Contains(f.What, what) {
				return f.OK
			}
		}
		t.Errorf("no finding has %q: %+v", what, Check(t.Context(), c.Mirror, c.Node))
		return false
	}
	c := newChecked(t)
	if !find(t, c, "for what Larder does not have, the registry is asked") {
		t.Error("a fallback counts as a fault without --only")
	}
	c.Only = true
	if find(t, c, "lets the node ask the registry") {
		t.Error("a fallback is no fault with --only")
	}
	install(t, c.Hosts, c.Mirror)
	for _, c.Only = range []bool{true, false} {
		if !find(t, c, "alone: the registry is never asked") {
			t.Errorf("with --only: %t, files that name Larder alone are a fault", c.Only)
		}
		for _, f := range Check(t.Context(), c.Mirror, c.Node) {
			if !f.OK {
				t.Errorf("with --only: %t: %+v", c.Only, f)
			}
		}
	}
	path := filepath.Join(c.Hosts, "docker.io", "hosts.toml")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	write(t, path, string(text)+"[host.\"https://mirror.example\"]\n")
	if find(t, c, "docker.io/hosts.toml was changed") {
		t.Error("another host beside Larder is no fault")
	}
}

func TestSnippetsOfOnly(t *testing.T) {
	m := only(Mirror{URL: larder, Registries: []string{"docker.io"}})
	for runtime, want := range map[string]string{
		"podman":  "prefix = \"docker.io\"\nlocation = \"127.0.0.1:5000/docker.io\"\ninsecure = true\n",
		"crio":    "The registries themselves are never\n# asked.",
		"k3s":     "disable-default-registry-endpoint: true",
		"nodeadm": `"larder mirror --only"`,
	} {
		text, err := Snippet(m, runtime, "/certs.d")
		if err != nil || !strings.Contains(text, want) || strings.Contains(text, "registry.mirror") {
			t.Errorf("%s: %v\n%s", runtime, err, text)
		}
	}
	for runtime := range noOnly {
		if text, err := Snippet(m, runtime, "/certs.d"); err == nil || errors.Is(err, ErrNoRegistries) || !strings.Contains(err.Error(), "cannot be kept from asking") {
			t.Errorf("%s: %v\n%s", runtime, err, text)
		}
	}
}
