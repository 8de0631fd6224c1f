package mirror

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// checked is a node that passes all checks until a test changes it.
type checked struct {
	Mirror
	Node
}

func newChecked(t *testing.T) *checked {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	t.Cleanup(server.Close)
	dir := t.TempDir()
	c := &checked{
		Mirror{URL: server.URL, Registries: []string{"docker.io"}, Default: true, Containerd: Version{2, 2}},
		Node{Hosts: filepath.Join(dir, "certs.d"), Config: filepath.Join(dir, "config.toml"), SOCI: filepath.Join(dir, "soci", "config.toml"), Environ: []string{"PATH=/bin"}},
	}
	install(t, c.Hosts, c.Mirror)
	c.config(t, c.Hosts)
	return c
}

func (c *checked) config(t *testing.T, path string) {
	t.Helper()
	write(t, c.Config, "version = 3\n[plugins.'io.containerd.cri.v1.images'.registry]\n  config_path = '"+path+"'\n")
}

// snapshotter has containerd use a snapshotter.
func (c *checked) snapshotter(t *testing.T, name string) {
	t.Helper()
	write(t, c.Config, "version = 3\n[plugins.'io.containerd.cri.v1.images']\n  snapshotter = '"+name+"'\n"+
		"[plugins.'io.containerd.cri.v1.images'.registry]\n  config_path = '"+c.Hosts+"'\n")
}

func erase(t *testing.T, path string) {
	t.Helper()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
}

func TestCheckPassesAConfiguredNode(t *testing.T) {
	c := newChecked(t)
	for _, f := range Check(t.Context(), c.Mirror, c.Node) {
		if !f.OK {
			t.Errorf("%+v", f)
		}
	}
}

func TestCheckPassesStargz(t *testing.T) {
	c := newChecked(t)
	c.snapshotter(t, "stargz")
	said := false
	for _, f := range Check(t.Context(), c.Mirror, c.Node) {
		if !f.OK {
			t.Errorf("%+v", f)
		}
		said = said || strings.Contains(f.What, "stargz")
	}
	if !said {
		t.Error("nothing is said about stargz")
	}
}

// Amazon Linux 2023 has two folders and discard_unpacked_layers: its containerd pulls by
// itself, and reads both folders.
func TestCheckPassesTwoFoldersIfContainerdPullsByItself(t *testing.T) {
	for _, setting := range []string{
		"discard_unpacked_layers = true", "use_local_image_pull = true", "max_concurrent_downloads = 10",
		"disable_snapshot_annotations = false",
	} {
		for _, version := range []Version{{2, 1}, {2, 2}} {
			c := newChecked(t)
			c.Containerd = version
			install(t, c.Hosts, c.Mirror)
			write(t, c.Config, "version = 3\nimports = ['pull.toml']\n[plugins.'io.containerd.cri.v1.images'.registry]\n  config_path = '/etc/docker/certs.d:"+c.Hosts+"'\n")
			write(t, filepath.Join(filepath.Dir(c.Config), "pull.toml"), "version = 3\n[plugins.'io.containerd.cri.v1.images']\n  "+setting+"\n")
			for _, f := range Check(t.Context(), c.Mirror, c.Node) {
				if !f.OK {
					t.Errorf("%s, containerd %s: %+v", setting, version, f)
				}
			}
		}
	}
	for _, setting := range []string{"discard_unpacked_layers = false", "max_concurrent_downloads = 3", "disable_snapshot_annotations = true"} {
		c := newChecked(t)
		write(t, c.Config, "version = 3\n[plugins.'io.containerd.cri.v1.images']\n  "+setting+
			"\n[plugins.'io.containerd.cri.v1.images'.registry]\n  config_path = '/etc/docker/certs.d:"+c.Hosts+"'\n")
		if found := Check(t.Context(), c.Mirror, c.Node); found[0].OK {
			t.Errorf("%s: %+v", setting, found[0])
		}
	}
}

func TestCheckNamesEachFaultAndItsRemedy(t *testing.T) {
	for name, test := range map[string]struct {
		spoil        func(t *testing.T, c *checked)
		what, advice string
	}{
		"two folders": {
			func(t *testing.T, c *checked) { c.config(t, c.Hosts+":/etc/docker/certs.d") },
			"config_path is 2 folders", "config_path = ",
		},
		"two folders, none of which is this one, read by a local pull": {
			func(t *testing.T, c *checked) {
				write(t, c.Config, "version = 3\n[plugins.'io.containerd.cri.v1.images']\n  use_local_image_pull = true\n"+
					"[plugins.'io.containerd.cri.v1.images'.registry]\n  config_path = '/a:/b'\n")
			},
			"config_path is /a:/b, without", "--containerd-dir",
		},
		"an IPv6 address before 2.0": {
			func(_ *testing.T, c *checked) { c.URL, c.Containerd = "http://[::1]:5000", Version{1, 7} },
			"cannot read a hosts.toml that names http://[::1]:5000", "127.0.0.1",
		},
		"a file that cannot be merged": {
			func(t *testing.T, c *checked) {
				write(t, filepath.Join(c.Hosts, "docker.io", "hosts.toml"), "\ufeffserver = 'https://registry-1.docker.io'\n")
			},
			"byte order mark", "change the file",
		},
		"the SOCI snapshotter": {
			func(t *testing.T, c *checked) { c.snapshotter(t, "soci") },
			"fetches its index, and in its parallel mode all layers, from the registries themselves", "127.0.0.1:5000/",
		},
		"SOCI in its parallel mode": {
			func(t *testing.T, c *checked) {
				c.snapshotter(t, "soci")
				write(t, c.SOCI, "[pull_modes]\n  [pull_modes.soci_v2]\n    enable = true\n  [pull_modes.parallel_pull_unpack]\n    enable = true\n")
			},
			"fetches all layers (its parallel mode", "127.0.0.1:5000/",
		},
		"SOCI in its lazy mode": {
			func(t *testing.T, c *checked) {
				c.snapshotter(t, "soci")
				write(t, c.SOCI, "[pull_modes.soci_v1]\nenable = true\n")
			},
			"fetches its index (its lazy mode", "127.0.0.1:5000/",
		},
		"SOCI with a broken configuration": {
			func(t *testing.T, c *checked) { c.snapshotter(t, "soci"); write(t, c.SOCI, "pull_modes = 7\n") },
			"how the SOCI snapshotter pulls is not known", "parallel mode",
		},
		"the default of 2.2": {
			func(t *testing.T, c *checked) { write(t, c.Config, "version = 3\n") },
			"its default, which is two folders", `[plugins."io.containerd.cri.v1.images".registry]`,
		},
		"no folder": {
			func(t *testing.T, c *checked) { c.Containerd = Version{1, 7}; write(t, c.Config, "version = 2\n") },
			"no config_path", `[plugins."io.containerd.grpc.v1.cri".registry]`,
		},
		"another folder": {
			func(t *testing.T, c *checked) { c.config(t, "/elsewhere") },
			"config_path is /elsewhere", "--containerd-dir",
		},
		"another folder in an import": {
			func(t *testing.T, c *checked) {
				dir := filepath.Dir(c.Config)
				write(t, c.Config, "version = 3\nimports = ['conf.d/*.toml']\n")
				write(t, filepath.Join(dir, "conf.d", "a.toml"),
					"version = 3\n[plugins.'io.containerd.cri.v1.images'.registry]\n  config_path = '/elsewhere'\n")
			},
			"config_path is /elsewhere", "--containerd-dir",
		},
		"no configuration": {
			func(t *testing.T, c *checked) { erase(t, c.Config) },
			"its default, which is two folders", "version = 3\n[plugins.\"io.containerd.cri.v1.images\".registry]",
		},
		"no configuration of an old version": {
			func(t *testing.T, c *checked) { c.Containerd = Version{1, 7}; erase(t, c.Config) },
			"no config_path", "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".registry]",
		},
		"a configuration that cannot be read": {
			func(t *testing.T, c *checked) { write(t, c.Config, "version = \n") },
			"cannot be read", "--containerd-config",
		},
		"no file": {
			func(_ *testing.T, c *checked) { c.Registries = append(c.Registries, "quay.io") },
			"quay.io/hosts.toml is missing", "run larder mirror",
		},
		"a broken file": {
			func(t *testing.T, c *checked) {
				write(t, filepath.Join(c.Hosts, "docker.io", "hosts.toml"), newFileMark+"\nserver =\n")
			},
			"cannot be read", "run larder mirror",
		},
		"another address": {
			func(t *testing.T, c *checked) {
				other := c.Mirror
				other.URL = "http://127.0.0.1:1"
				install(t, c.Hosts, other)
			},
			"does not name", "run larder mirror",
		},
		"a file for another version": {
			func(_ *testing.T, c *checked) { c.Containerd = Version{1, 7} },
			"another version", "run larder mirror",
		},
		"a folder that hides _default": {
			func(t *testing.T, c *checked) { write(t, filepath.Join(c.Hosts, "quay.io_5000_", "ca.crt"), "x") },
			"quay.io_5000_ hides _default", "--registry quay.io:5000",
		},
		"a proxy": {
			func(_ *testing.T, c *checked) {
				c.URL = strings.Replace(c.URL, "127.0.0.1", "larder.example", 1)
				c.Environ = []string{"http_proxy=http://proxy.example:3128"}
			},
			"to a proxy", "add larder.example to NO_PROXY",
		},
		"nobody there": {
			func(t *testing.T, c *checked) { c.URL = "http://127.0.0.1:1"; install(t, c.Hosts, c.Mirror) },
			"does not answer", "larder serve",
		},
		"another server at the address": {
			func(t *testing.T, c *checked) {
				server := httptest.NewServer(http.NotFoundHandler())
				t.Cleanup(server.Close)
				c.URL = server.URL
				install(t, c.Hosts, c.Mirror)
			},
			"answers 404", "is it Larder",
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := newChecked(t)
			test.spoil(t, c)
			for _, f := range Check(t.Context(), c.Mirror, c.Node) {
				if !f.OK && strings.Contains(f.What, test.what) {
					if !strings.Contains(f.Advice, test.advice) {
						t.Errorf("advice is %q, want %q in it", f.Advice, test.advice)
					}
					return
				}
			}
			t.Errorf("no finding has %q: %+v", test.what, Check(t.Context(), c.Mirror, c.Node))
		})
	}
}
