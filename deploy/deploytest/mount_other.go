//go:build !linux

package deploytest

import "testing"

const noMounts = "tests mount on Linux only"

// Tmpfs skips the test.
func Tmpfs(t *testing.T, _ string) (dir string) {
	t.Helper()
	Miss(t, "mount", noMounts)
	return ""
}

// ReadOnly skips the test.
func ReadOnly(t *testing.T, _ string) (back func()) {
	t.Helper()
	Miss(t, "mount", noMounts)
	return nil
}

// Cover skips the test.
func Cover(t *testing.T, _, _ string) (back func()) {
	t.Helper()
	Miss(t, "mount", noMounts)
	return nil
}
