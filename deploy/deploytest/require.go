// Package deploytest has what tests that run other programs share.
package deploytest

import (
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// Require returns the path of a program that the test needs. Without the program the test is skipped, or fails if
// LARDER_REQUIRE, a list separated by commas, names it.
func Require(t testing.TB, program string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		Miss(t, program, program+" is not installed")
	}
	return path
}

// Miss ends a test that cannot run a program for some reason, as Require does.
func Miss(t testing.TB, program, reason string) {
	t.Helper()
	if slices.Contains(strings.Split(os.Getenv("LARDER_REQUIRE"), ","), program) {
		t.Fatalf("%s, and LARDER_REQUIRE names it", reason)
	}
	t.Skip(reason)
}
