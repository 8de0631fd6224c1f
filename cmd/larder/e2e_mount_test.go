package main

import (
	"bytes"
	"os"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/larder-registry/larder/deploy/deploytest"
)

// requireRoot ends a test of a program that only root can run, as require does. Each of these programs mounts, which root
// may not do in a container without CAP_SYS_ADMIN.
func requireRoot(t *testing.T, program string) {
	t.Helper()
	if !hasRoot() {
		deploytest.Miss(t, program, program+" needs root, with CAP_SYS_ADMIN")
	}
}

func hasRoot() bool { return os.Geteuid() == 0 && capabilities()&(1<<unix.CAP_SYS_ADMIN) != 0 }

// capabilities returns the effective capabilities of this process (proc_pid_status(5)).
func capabilities() uint64 {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	for line := range bytes.Lines(status) {
		if mask, ok := strings.CutPrefix(string(line), "CapEff:"); ok {
			all, _ := strconv.ParseUint(strings.TrimSpace(mask), 16, 64)
			return all
		}
	}
	return 0
}

// mountTmpfs mounts an empty file system with these options, and returns its folder. It is unmounted after the end of all
// processes that the test starts later.
func mountTmpfs(t *testing.T, options string) (dir string) {
	t.Helper()
	requireRoot(t, "mount")
	dir = t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, options); err != nil {
		deploytest.Miss(t, "mount", "a file system of its own cannot be mounted: "+err.Error())
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}
