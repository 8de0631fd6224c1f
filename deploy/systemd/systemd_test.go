// Package systemd has no code. Its tests check the units in this folder.
package systemd

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestUnitsAreValid(t *testing.T) {
	analyze := require(t, "systemd-analyze")
	root := unitRoot(t)
	out, err := exec.CommandContext(t.Context(), analyze, "verify", "--root="+root, "--man=no", "larder.service", "larder.socket").CombinedOutput()
	if err != nil || strings.TrimSpace(string(out)) != "" {
		t.Errorf("systemd-analyze verify: %v\n%s", err, out)
	}
}

// maxExposure is the highest rating of "systemd-analyze security" that the service may get, in tenths. 0 is a service that
// can do nothing, 100 one without restrictions. The rest is the network, which a cache needs.
const maxExposure = "20"

func TestServiceIsHardened(t *testing.T) {
	analyze := require(t, "systemd-analyze")
	out, err := exec.CommandContext(t.Context(), analyze, "security", "--offline=true", "--root="+unitRoot(t), "--threshold="+maxExposure, "--no-pager", "larder.service").CombinedOutput()
	if err != nil {
		t.Errorf("systemd-analyze security: %v\n%s", err, out)
	}
}

func TestUserAndFoldersAreCreated(t *testing.T) {
	sysusers, tmpfiles := require(t, "systemd-sysusers"), require(t, "systemd-tmpfiles")
	if os.Geteuid() != 0 {
		t.Skip("only root can give a folder to another user")
	}
	root := t.TempDir()
	copyTo(t, "sysusers.conf", filepath.Join(root, "usr/lib/sysusers.d/larder.conf"))
	copyTo(t, "tmpfiles.conf", filepath.Join(root, "usr/lib/tmpfiles.d/larder.conf"))
	write(t, filepath.Join(root, "etc/passwd"), "", 0o644)
	for _, cmd := range []*exec.Cmd{ // as in postinstall.sh
		exec.CommandContext(t.Context(), sysusers, "--root="+root, "larder.conf"),
		exec.CommandContext(t.Context(), tmpfiles, "--root="+root, "--create", "larder.conf"),
	} {
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", cmd, err, out)
		}
	}
	users, err := os.ReadFile(filepath.Join(root, "etc/passwd"))
	if err != nil {
		t.Fatal(err)
	}
	cache, err := os.Stat(filepath.Join(root, "var/lib/larder"))
	if err != nil {
		t.Fatal(err)
	}
	owner := fmt.Sprintf("larder:x:%d:", cache.Sys().(*syscall.Stat_t).Uid)
	if !strings.HasPrefix(string(users), owner) || cache.Mode().Perm() != 0o750 {
		t.Errorf("passwd is %q, want an entry %q; the cache folder has mode %v, want 0750", users, owner, cache.Mode())
	}
	if _, err := os.Stat(filepath.Join(root, "etc/larder")); err != nil {
		t.Error(err)
	}
}

// unitRoot returns a root folder with the units and everything that they refer to.
func unitRoot(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	for _, unit := range []string{"larder.service", "larder.socket"} {
		copyTo(t, unit, filepath.Join(root, "usr/lib/systemd/system", unit))
	}
	for _, target := range []string{"sysinit", "basic", "multi-user", "sockets", "shutdown", "network"} {
		write(t, filepath.Join(root, "usr/lib/systemd/system", target+".target"), "[Unit]\n", 0o644)
	}
	write(t, filepath.Join(root, "usr/bin/larder"), "#!/bin/sh\n", 0o755)
	return root
}

func copyTo(t *testing.T, from, to string) {
	t.Helper()
	text, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	write(t, to, string(text), 0o644)
}

func write(t *testing.T, path, text string, mode os.FileMode) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
}

// require returns the path of a program. If it is not installed, it skips the test, or fails it if LARDER_REQUIRE names
// the program.
func require(t *testing.T, program string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil && slices.Contains(strings.Split(os.Getenv("LARDER_REQUIRE"), ","), program) {
		t.Fatalf("%s is not installed, and LARDER_REQUIRE names it", program)
	}
	if err != nil {
		t.Skip(program + " is not installed")
	}
	return path
}
