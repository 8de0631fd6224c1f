package main

import (
	"bytes"
	"os"
	"strconv"
	"strings"
	"testing"

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

func hasRoot() bool { return os.Geteuid() == 0 && capabilities()&(1<<sysAdmin) != 0 }

const sysAdmin = 21 // CAP_SYS_ADMIN, in linux/capability.h

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
