package main

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/larder-registry/larder/deploy/deploytest"
	"github.com/larder-registry/larder/deploy/internal/manuals"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// installed are the files of a package, without its documents.
var installed = []string{
	"etc/larder/larder.yaml",
	"usr/bin/larder",
	"usr/lib/systemd/system/larder.service",
	"usr/lib/systemd/system/larder.socket",
	"usr/lib/sysusers.d/larder.conf",
	"usr/lib/tmpfiles.d/larder.conf",
	"usr/share/bash-completion/completions/larder",
	"usr/share/fish/vendor_completions.d/larder.fish",
	"usr/share/man/man1/larder.1.gz",
}

func TestDebIsInstalledAndRemoved(t *testing.T) {
	dpkg := deploytest.Require(t, "dpkg")
	root := t.TempDir()
	for _, name := range []string{"info", "updates", "triggers"} {
		mkdir(t, filepath.Join(root, "var/lib/dpkg", name))
	}
	writeFile(t, filepath.Join(root, "var/lib/dpkg/status"), "", 0o644)
	base := []string{"--root=" + root, "--force-not-root", "--force-script-chrootless", "--force-depends"}
	// In another root, the scripts must not call this machine's service manager.
	env := []string{"LARDER_SYSTEMD=/nowhere"}
	execute(t, env, dpkg, append(base, "--install", makePackage(t, "deb"))...)
	requireFiles(t, root, append(installed, "usr/share/lintian/overrides/larder", "usr/share/zsh/vendor-completions/_larder")...)

	writeFile(t, filepath.Join(root, "etc/larder/larder.yaml"), "listen: 127.0.0.1:6000\n", 0o644)
	execute(t, env, dpkg, append(base, "--remove", "larder")...)
	requireFiles(t, root, "etc/larder/larder.yaml") // changed by the administrator, so only --purge removes it
	cached := filepath.Join(root, "var/lib/larder/blobs")
	mkdir(t, cached)
	execute(t, env, dpkg, append(base, "--purge", "larder")...)
	requireFiles(t, root)
	if _, err := os.Stat(filepath.Dir(cached)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the cache is still there after a purge: %v", err)
	}
}

func TestRPMIsInstalledAndRemoved(t *testing.T) {
	rpm := deploytest.Require(t, "rpm")
	root := t.TempDir()
	// The scripts would need a shell in the other root. They have their own test below.
	execute(t, nil, rpm, "--root", root, "--noscripts", "--nodeps", "--ignorearch", "--install", makePackage(t, "rpm"))
	requireFiles(t, root, append(installed, "usr/share/licenses/larder/LICENSE", "usr/share/zsh/site-functions/_larder")...)
	execute(t, nil, rpm, "--root", root, "--noscripts", "--nodeps", "--erase", "larder")
	requireFiles(t, root)
}

func TestScriptsCallTheServiceManager(t *testing.T) {
	const restart = "systemctl restart larder.service"
	for name, test := range map[string]struct {
		script string
		args   []string
		active bool
		want   []string
	}{
		"deb, new":       {"postinstall.sh", []string{"configure", ""}, false, []string{"systemd-sysusers larder.conf", "systemd-tmpfiles --create larder.conf", "systemctl daemon-reload"}},
		"deb, upgrade":   {"postinstall.sh", []string{"configure", "1.0"}, true, []string{"systemctl daemon-reload", restart}},
		"rpm, upgrade":   {"postinstall.sh", []string{"2"}, true, []string{"systemctl daemon-reload", restart}},
		"deb, removal":   {"preremove.sh", []string{"remove"}, true, []string{"systemctl disable --now larder.socket larder.service"}},
		"rpm, removal":   {"preremove.sh", []string{"0"}, true, []string{"systemctl disable --now larder.socket larder.service"}},
		"before upgrade": {"preremove.sh", []string{"upgrade", "2.0"}, true, nil},
		"after removal":  {"postremove.sh", []string{"remove"}, false, []string{"systemctl daemon-reload"}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			calls := filepath.Join(dir, "calls")
			exit := "1"
			if test.active {
				exit = "0"
			}
			for _, program := range []string{"systemctl", "systemd-sysusers", "systemd-tmpfiles"} {
				writeFile(t, filepath.Join(dir, program),
					"#!/bin/sh\necho \"${0##*/} $*\" >>"+calls+"\n[ \"$1\" != is-active ] || exit "+exit+"\n", 0o755)
			}
			execute(t, []string{"PATH=" + dir + ":" + os.Getenv("PATH"), "LARDER_SYSTEMD=" + dir}, "/bin/sh", append([]string{test.script}, test.args...)...)
			got, err := os.ReadFile(calls)
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				t.Fatal(err)
			}
			lines := strings.Split(strings.TrimSpace(string(got)), "\n")
			for _, want := range test.want {
				if !slices.Contains(lines, want) {
					t.Errorf("%q was not called; calls:\n%s", want, got)
				}
			}
			if slices.Contains(lines, restart) != slices.Contains(test.want, restart) || test.want == nil && len(got) > 0 {
				t.Errorf("calls:\n%s", got)
			}
		})
	}
}

// makePackage builds a package, with this test as its binary, and returns its path.
func makePackage(t *testing.T, format string) string {
	t.Helper()
	var out bytes.Buffer
	o := optionsOf(t)
	o.Format = []string{format}
	if err := o.run(t.Context(), &out); err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(out.String())
}

func optionsOf(t *testing.T) options {
	t.Helper()
	binary, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	made := t.TempDir()
	for _, name := range []string{manuals.Page, manuals.Bash, manuals.Zsh, manuals.Fish} {
		writeFile(t, filepath.Join(made, name), name, 0o600)
	}
	return options{
		Version: "1.2.3", Binary: binary, Arch: runtime.GOARCH, Format: []string{"deb", "rpm"}, Out: t.TempDir(), Root: filepath.Join("..", ".."), Manuals: made,
	}
}

func TestPackagesOfTheSameFilesAreEqual(t *testing.T) {
	for _, epoch := range []string{"", "1790000000"} {
		t.Setenv("SOURCE_DATE_EPOCH", epoch)
		for _, format := range []string{"deb", "rpm"} {
			first, err1 := os.ReadFile(makePackage(t, format))
			second, err2 := os.ReadFile(makePackage(t, format))
			if err := errors.Join(err1, err2); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(first, second) {
				t.Errorf("SOURCE_DATE_EPOCH=%s: two %s packages of the same files differ", epoch, format)
			}
		}
	}
}

func TestPackageIsRefusedForTheBinaryOfAnotherMachine(t *testing.T) {
	o := optionsOf(t)
	o.Arch = "s390x"
	if err := o.run(t.Context(), io.Discard); err == nil || !strings.Contains(err.Error(), "is for "+runtime.GOARCH+", and the package for s390x") {
		t.Errorf("a binary for %s as s390x: %v", runtime.GOARCH, err)
	}
	o.Binary = filepath.Join(o.Manuals, manuals.Page)
	if err := o.run(t.Context(), io.Discard); err == nil || !strings.Contains(err.Error(), "not a binary that Go built") {
		t.Errorf("a text file: %v", err)
	}
	left, err := os.ReadDir(o.Out)
	if err != nil || len(left) != 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
}

// requireFiles fails the test unless root contains exactly these files below etc and usr, documents aside.
func requireFiles(t *testing.T, root string, want ...string) {
	t.Helper()
	var got []string
	for _, dir := range []string{"etc", "usr"} {
		err := filepath.WalkDir(filepath.Join(root, dir), func(path string, e fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			name, _ := filepath.Rel(root, path)
			if err == nil && !e.IsDir() && !strings.HasPrefix(name, "usr/share/doc/") {
				got = append(got, name)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	slices.Sort(want)
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
}

func execute(t *testing.T, env []string, program string, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), program, args...)
	cmd.Env = append(os.Environ(), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s %s: %v\n%s", program, strings.Join(args, " "), err, out)
	}
}

func mkdir(t *testing.T, path string) {
	t.Helper()
	if err := os.MkdirAll(path, 0o755); err != nil {
		t.Fatal(err)
	}
}

func writeFile(t *testing.T, path, text string, mode fs.FileMode) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
}
