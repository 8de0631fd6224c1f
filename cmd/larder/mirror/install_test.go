package mirror

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const larder = "http://127.0.0.1:5000"

// foreignFile is a file by an administrator: another mirror, and an array over several lines whose elements look like
// tables.
const foreignFile = `server = "https://quay.io"
ca = "/etc/ssl/quay.pem"
client = [
  ["a.cert", "a.key"],
]

[host."https://mirror.example"] # the house's own
  capabilities = ["pull"]
  [host."https://mirror.example".header]
    X-Team = ["a"]
`

func TestInstallWritesForEachVersion(t *testing.T) {
	for _, c := range []struct {
		version Version
		want    string
	}{
		{Version{}, `capabilities = ["pull", "resolve"]`},
		{Version{1, 6}, `capabilities = ["pull", "resolve"]`},
		{Version{1, 7}, `capabilities = ["pull", "resolve"]`},
		{Version{2, 0}, `capabilities = ["pull", "resolve"]`},
		{Version{2, 1}, "capabilities = [\"pull\", \"resolve\"]\n  dial_timeout = \"2s\""},
		{Version{2, 2}, "capabilities = [\"pull\", \"resolve\", \"referrers\"]\n  dial_timeout = \"2s\""},
		{Version{3, 0}, "capabilities = [\"pull\", \"resolve\", \"referrers\"]\n  dial_timeout = \"2s\""},
	} {
		t.Run(c.version.String(), func(t *testing.T) {
			dir := t.TempDir()
			install(t, dir, Mirror{URL: larder, Registries: []string{"docker.io"}, Containerd: c.version})
			want := newFileMark + "\n" + newFolderMark + "\n\n" +
				blockBegin + "\n[host.\"http://127.0.0.1:5000\"]\n  " + c.want + "\n" + blockEnd + "\n"
			if diff := cmp.Diff(want, tree(t, dir)["docker.io/hosts.toml"]); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestInstallAgainChangesNothing(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "quay.io", "hosts.toml"), foreignFile)
	m := Mirror{URL: larder, Registries: []string{"quay.io", "docker.io"}, Default: true}
	install(t, dir, m)
	before := tree(t, dir)
	for _, change := range install(t, dir, m) {
		if change.Did != Unchanged {
			t.Errorf("%s %s", change.Did, change.Path)
		}
	}
	if diff := cmp.Diff(before, tree(t, dir)); diff != "" {
		t.Error(diff)
	}
}

func TestRemoveLeavesTheFolderAsItWas(t *testing.T) {
	for name, files := range map[string]map[string]string{
		"nothing":                    {},
		"a foreign file":             {"quay.io/hosts.toml": foreignFile},
		"one without a last newline": {"quay.io/hosts.toml": `server = "https://quay.io"`},
		"an empty one":               {"quay.io/hosts.toml": ""},
		"certificates":               {"quay.io/ca.crt": "c", "quay.io/a.cert": "c", "quay.io/a.key": "k"},
		"_default":                   {"_default/hosts.toml": "[host.\"https://mirror.example\"]\n"},
		"another registry":           {"ghcr.io/hosts.toml": foreignFile},
		"a folder of the other form": {"quay.io_5000_/hosts.toml": foreignFile},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			for path, text := range files {
				write(t, filepath.Join(dir, path), text)
			}
			before := tree(t, dir)
			install(t, dir, Mirror{
				URL: larder, Registries: []string{"docker.io", "quay.io", "quay.io:5000"}, Default: true,
			})
			// Again, for another URL and version: the backup is still that of the first file.
			install(t, dir, Mirror{
				URL: "http://127.0.0.1:6000", Registries: []string{"docker.io", "quay.io", "quay.io:5000"}, Default: true,
				Containerd: Version{2, 2},
			})
			if _, err := Remove(dir); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(before, tree(t, dir)); diff != "" {
				t.Errorf("the folder is not what it was (-want +got):\n%s", diff)
			}
		})
	}
}

func TestRemoveRestoresModeAndTimes(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "quay.io", "hosts.toml")
	write(t, path, foreignFile)
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	before := stat(t, path)
	install(t, dir, Mirror{URL: larder, Registries: []string{"quay.io"}})
	if _, err := Remove(dir); err != nil {
		t.Fatal(err)
	}
	after := stat(t, path)
	if !os.SameFile(before, after) || before.Mode() != after.Mode() || !before.ModTime().Equal(after.ModTime()) {
		t.Errorf("%v %v became %v %v", before.Mode(), before.ModTime(), after.Mode(), after.ModTime())
	}
}

func TestRemoveKeepsLaterEdits(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "quay.io", "hosts.toml")
	write(t, path, foreignFile)
	install(t, dir, Mirror{URL: larder, Registries: []string{"quay.io"}})
	const edit = "\n[host.\"https://second.example\"]\n"
	write(t, path, tree(t, dir)["quay.io/hosts.toml"]+edit)
	changes, err := Remove(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(changes) != 1 || changes[0].Did != Left {
		t.Errorf("changes = %v, want one that says %q", changes, Left)
	}
	if got := tree(t, dir)["quay.io/hosts.toml"]; got != foreignFile+edit {
		t.Errorf("the file is now\n%s", got)
	}
}

func TestInstallKeepsForeignSettings(t *testing.T) {
	for name, original := range map[string]string{
		"with tables":          foreignFile,
		"without tables":       "server = \"https://quay.io\"\n",
		"with a table at once": "[host.\"https://mirror.example\"]\n",
		"with nothing":         "# later\n",
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			write(t, filepath.Join(dir, "quay.io", "hosts.toml"), original)
			install(t, dir, Mirror{URL: larder, Registries: []string{"quay.io"}})
			text := tree(t, dir)["quay.io/hosts.toml"]
			rest, ours := cut(text)
			if !ours || rest != original {
				t.Errorf("the file is now\n%s", text)
			}
			if i, j := strings.Index(text, larder), strings.Index(text, "https://mirror.example"); j >= 0 && j < i {
				t.Errorf("the other mirror is asked first:\n%s", text)
			}
			hosts, err := readHosts(text)
			if err != nil || hosts[larder] == nil {
				t.Errorf("hosts = %v, %v", hosts, err)
			}
		})
	}
}

func TestInstallLeavesFilesItCannotMergeAndWritesTheOthers(t *testing.T) {
	for name, original := range map[string]string{
		"not TOML":              "server = \n",
		"a host in one line":    "host = {\"https://mirror.example\" = {}}\n",
		"a host by its path":    "host.\"https://mirror.example\".skip_verify = true\n",
		"a bracket in a text":   "server = '''\n[x\n",
		"a table twice":         "[host.\"https://a.example\"]\n[host.\"https://a.example\"]\n",
		"a byte order mark":     "\ufeffserver = 'https://quay.io'\n",
		"a folder for the file": "",
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "quay.io", "hosts.toml")
			if original == "" {
				write(t, filepath.Join(path, "file"), "x")
			} else {
				write(t, path, original)
			}
			before := tree(t, dir)
			changes, err := Install(Mirror{URL: larder, Registries: []string{"docker.io", "quay.io", "ghcr.io"}}, dir)
			if err == nil || !strings.Contains(err.Error(), path) {
				t.Errorf("error = %v, want one that names the file", err)
			}
			var wrote []string
			for _, c := range changes {
				wrote = append(wrote, c.Did+" "+c.Path)
			}
			want := []string{"wrote " + filepath.Join(dir, "docker.io", "hosts.toml"), "wrote " + filepath.Join(dir, "ghcr.io", "hosts.toml")}
			if diff := cmp.Diff(want, wrote); diff != "" {
				t.Error(diff)
			}
			after := tree(t, dir)
			for name, text := range before {
				if after[name] != text {
					t.Errorf("%s became %q", name, after[name])
				}
			}
		})
	}
}

func TestInstallRefusesAnAddressThatContainerdCannotRead(t *testing.T) {
	for _, c := range []struct {
		version Version
		refused bool
	}{{Version{}, true}, {Version{1, 7}, true}, {Version{2, 0}, false}} {
		dir := t.TempDir()
		_, err := Install(Mirror{URL: "http://[::1]:5000", Registries: []string{"docker.io"}, Containerd: c.version}, dir)
		if (err != nil) != c.refused {
			t.Errorf("containerd %s: %v", c.version, err)
		}
		if left := tree(t, dir); c.refused && len(left) > 0 {
			t.Errorf("containerd %s: written: %v", c.version, left)
		}
	}
}

func TestInstallKeepsAFileThatAlreadyNamesLarder(t *testing.T) {
	dir := t.TempDir()
	byHand := "[host.\"" + larder + "\"]\n  capabilities = [\"pull\"]\n"
	write(t, filepath.Join(dir, "quay.io", "hosts.toml"), byHand)
	changes := install(t, dir, Mirror{URL: larder, Registries: []string{"quay.io"}})
	if changes[0].Did != Unchanged {
		t.Errorf("changes = %v", changes)
	}
	if changes, err := Remove(dir); err != nil || len(changes) > 0 {
		t.Errorf("Remove = %v, %v; the file is not ours", changes, err)
	}
}

func TestInstallNamesCertificates(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"ca.crt", "client.cert", "client.key", "alone.cert"} {
		write(t, filepath.Join(dir, "quay.io", name), "x")
	}
	install(t, dir, Mirror{URL: larder, Registries: []string{"quay.io"}})
	text := tree(t, dir)["quay.io/hosts.toml"]
	for _, want := range []string{"ca = [\"ca.crt\"]\n", "client = [[\"client.cert\", \"client.key\"]]\n"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing in\n%s", want, text)
		}
	}
	if strings.Contains(text, "alone") || strings.Contains(text, newFolderMark) {
		t.Errorf("the file is\n%s", text)
	}
}

func install(t *testing.T, dir string, m Mirror) []Change {
	t.Helper()
	changes, err := Install(m, dir)
	if err != nil {
		t.Fatal(err)
	}
	return changes
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func stat(t *testing.T, path string) fs.FileInfo {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info
}

// tree returns the content of files by their paths; folders are empty.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := make(map[string]string)
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		name, _ := filepath.Rel(dir, path)
		all[name] = ""
		if !e.IsDir() {
			text, err := os.ReadFile(path)
			all[name] = string(text)
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}
