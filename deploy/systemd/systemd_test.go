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

	"github.com/larder-registry/larder/deploy/deploytest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestUnitsAreValid(t *testing.T) {
	analyze := deploytest.Require(t, "systemd-analyze")
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
	analyze := deploytest.Require(t, "systemd-analyze")
	out, err := exec.CommandContext(t.Context(), analyze, "security", "--offline=true", "--root="+unitRoot(t), "--threshold="+maxExposure, "--no-pager", "larder.service").CombinedOutput()
	if err != nil {
		t.Errorf("systemd-analyze security: %v\n%s", err, out)
	}
}

func TestUserAndFoldersAreCreated(t *testing.T) {
	sysusers, tmpfiles := deploytest.Require(t, "systemd-sysusers"), deploytest.Require(t, "systemd-tmpfiles")
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

// The key of access decisions is in a folder that the service may write, other than the cache's.
func TestServiceCanKeepTheKeyOfAccessDecisions(t *testing.T) {
	unit, err := os.ReadFile("larder.service")
	if err != nil {
		t.Fatal(err)
	}
	var folders []string
	key := ""
	for line := range strings.Lines(string(unit)) {
		if value, ok := strings.CutPrefix(line, "StateDirectory="); ok {
			folders = strings.Fields(value)
		}
		if value, ok := strings.CutPrefix(line, "Environment=LARDER_ACCESS_KEY_FILE="); ok {
			key = strings.TrimSpace(value)
		}
	}
	folder := strings.TrimPrefix(filepath.Dir(key), "/var/lib/")
	if folder == "larder" || !slices.Contains(folders, folder) {
		t.Errorf("the key is %q, and the service may write %v", key, folders)
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
	for _, program := range []string{"usr/bin/larder", "bin/sh"} {
		write(t, filepath.Join(root, program), "#!/bin/sh\n", 0o755)
	}
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
