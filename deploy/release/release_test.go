package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/CycloneDX/cyclonedx-go"
	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/larder-registry/larder/deploy/deploytest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const checkout = "../.."

// build builds a release for this machine, with the packages if it runs Linux.
func build(t *testing.T) (dir string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "dist")
	var out bytes.Buffer
	args := []string{"--version", "v1.2.3", "--out", dir, "--root", checkout, "--platform", runtime.GOOS + "/" + runtime.GOARCH}
	if status := run(t.Context(), args, &out, &out); status != 0 {
		t.Fatalf("exit status %d:\n%s", status, &out)
	}
	return dir
}

func readAll(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	all := make(map[string][]byte)
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if all[e.Name()], err = os.ReadFile(filepath.Join(dir, e.Name())); err != nil {
			t.Fatal(err)
		}
	}
	return all
}

func TestTwoBuildsOfAReleaseAreEqual(t *testing.T) {
	if testing.Short() {
		t.Skip("it builds larder twice")
	}
	if err := exec.CommandContext(t.Context(), "git", "-C", checkout, "rev-parse", "HEAD").Run(); err != nil {
		t.Skip("this is not a git checkout, whose commit a release names")
	}
	first, second := readAll(t, build(t)), readAll(t, build(t))
	for name, content := range first {
		if !bytes.Equal(content, second[name]) {
			t.Errorf("%s differs", name)
		}
	}
	if len(first) != len(second) {
		t.Errorf("%d and %d files", len(first), len(second))
	}

	base := fmt.Sprintf("larder_1.2.3_%s_%s", runtime.GOOS, runtime.GOARCH)
	checkArchive(t, base, first[base+".tar.gz"])
	checkSBOM(t, first[base+".cdx.json"])
	if args := string(first["image.args"]); !strings.HasPrefix(args, "VERSION=v1.2.3\nREVISION=") {
		t.Errorf("image.args: %q", args)
	}
	var sums strings.Builder
	for _, name := range sortedNames(first) {
		if name != "checksums.txt" {
			fmt.Fprintf(&sums, "%x  %s\n", sha256.Sum256(first[name]), name)
		}
	}
	if diff := cmp.Diff(sums.String(), string(first["checksums.txt"])); diff != "" {
		t.Errorf("checksums.txt (-want +got):\n%s", diff)
	}
	if runtime.GOOS == "linux" {
		checkDeb(t, first[fmt.Sprintf("larder_1.2.3_%s.deb", runtime.GOARCH)])
	}
}

// checkDeb runs Debian's own checks of a package.
func checkDeb(t *testing.T, content []byte) {
	t.Helper()
	lintian := deploytest.Require(t, "lintian")
	path := filepath.Join(t.TempDir(), "larder.deb")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), lintian, "--allow-root", "--fail-on", "error", path).CombinedOutput(); err != nil {
		t.Errorf("lintian: %v\n%s", err, out)
	}
}

func sortedNames(files map[string][]byte) []string {
	var names []string
	for name := range files {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// checkArchive runs the larder of an archive.
func checkArchive(t *testing.T, base string, packed []byte) {
	t.Helper()
	unpacked, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	var names []string
	for archive := tar.NewReader(unpacked); ; {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, header.Name)
		content, err := io.ReadAll(archive)
		if err != nil {
			t.Fatal(err)
		}
		if header.Name == base+"/larder" {
			if err := os.WriteFile(filepath.Join(dir, "larder"), content, 0o700); err != nil {
				t.Fatal(err)
			}
		}
	}
	want := []string{"larder", "LICENSE", "README.md", "CHANGELOG.md", "larder.1.gz", "completion/larder.bash", "completion/_larder", "completion/larder.fish"}
	for i := range want {
		want[i] = base + "/" + want[i]
	}
	if diff := cmp.Diff(want, names); diff != "" {
		t.Errorf("the archive (-want +got):\n%s", diff)
	}
	out, err := exec.CommandContext(t.Context(), filepath.Join(dir, "larder"), "version").CombinedOutput()
	if err != nil || !strings.HasPrefix(string(out), "larder v1.2.3 ") {
		t.Errorf("larder version: %q %v", out, err)
	}
}

func checkSBOM(t *testing.T, text []byte) {
	t.Helper()
	var bom cyclonedx.BOM
	if err := json.Unmarshal(text, &bom); err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(*bom.Components, func(c cyclonedx.Component) bool {
		return strings.HasPrefix(c.PackageURL, "pkg:golang/github.com/dgraph-io/badger/v4@v4.") && c.Hashes != nil && len((*c.Hashes)[0].Value) == 64
	}) {
		t.Errorf("Badger is not among %d components", len(*bom.Components))
	}
}

func TestReleaseIsBuiltAsTheImageIs(t *testing.T) {
	dockerfile, err := os.ReadFile(filepath.Join(checkout, "Dockerfile"))
	if err != nil {
		t.Fatal(err)
	}
	const flags = `-trimpath -buildvcs=false -ldflags "-s -w -X main.version=$VERSION"`
	if !strings.Contains(string(dockerfile), flags) {
		t.Errorf("the Dockerfile builds with other flags than %s", flags)
	}
}

func TestWrongUsageOfReleaseBuildsNothing(t *testing.T) {
	full := t.TempDir()
	if err := os.WriteFile(filepath.Join(full, "older"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		args   []string
		status int
		text   string
	}{
		{[]string{"--nonsense"}, 2, "unknown flag"},
		{[]string{"--version", "0.2"}, 1, `"0.2" is not a version such as v0.2.0`},
		{[]string{"--version", "v0.2.0", "--out", full}, 1, "is not empty"},
	} {
		var out bytes.Buffer
		status := run(t.Context(), append(test.args, "--root", checkout), &out, &out)
		if status != test.status || !strings.Contains(out.String(), test.text) {
			t.Errorf("release %q: exit status %d, want %d: %s", test.args, status, test.status, &out)
		}
	}
	if _, err := os.Stat("dist"); err == nil {
		t.Error("there is a folder dist")
	}
}
