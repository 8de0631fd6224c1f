// Package systemd has no code: its test checks the units beside it.
package systemd

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestUnitsAreValid(t *testing.T) {
	analyze := require(t)
	root := unitRoot(t)
	out, err := exec.CommandContext(t.Context(), analyze, "verify", "--root="+root, "--man=no", "larder.service", "larder.socket").CombinedOutput()
	if err != nil || strings.TrimSpace(string(out)) != "" {
		t.Errorf("systemd-analyze verify: %v\n%s", err, out)
	}
}

// maxExposure is what systemd's own rating may be at most, in tenths: 0 is a service that can do nothing, 100 one without
// any restriction. What is left is the network, which a cache needs.
const maxExposure = "20"

func TestServiceIsHardened(t *testing.T) {
	analyze := require(t)
	out, err := exec.CommandContext(t.Context(), analyze, "security", "--offline=true", "--root="+unitRoot(t), "--threshold="+maxExposure, "--no-pager", "larder.service").CombinedOutput()
	if err != nil {
		t.Errorf("systemd-analyze security: %v\n%s", err, out)
	}
}

// unitRoot is a root folder with what the units name.
func unitRoot(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	write := func(path, text string, mode os.FileMode) {
		path = filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
	}
	for _, unit := range []string{"larder.service", "larder.socket"} {
		text, err := os.ReadFile(unit)
		if err != nil {
			t.Fatal(err)
		}
		write("usr/lib/systemd/system/"+unit, string(text), 0o644)
	}
	for _, target := range []string{"sysinit", "basic", "multi-user", "sockets", "shutdown", "network"} {
		write("usr/lib/systemd/system/"+target+".target", "[Unit]\n", 0o644)
	}
	write("usr/bin/larder", "#!/bin/sh\n", 0o755)
	return root
}

// require returns systemd-analyze, or skips the test, unless LARDER_REQUIRE names it.
func require(t *testing.T) string {
	t.Helper()
	const program = "systemd-analyze"
	path, err := exec.LookPath(program)
	if err != nil && slices.Contains(strings.Split(os.Getenv("LARDER_REQUIRE"), ","), program) {
		t.Fatalf("%s is not installed, and LARDER_REQUIRE names it", program)
	}
	if err != nil {
		t.Skip(program + " is not installed")
	}
	return path
}
