package main

import (
	"os"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"go.uber.org/goleak"
)

// repository is the module's root, seen from this package's folder, where go test runs its tests.
const repository = "../.."

// TestMain puts two commands on the PATH, both of them this test binary under another name: larder for the CLI scripts,
// and the fake ECR, which the end-to-end tests start as a process so that it can be killed.
func TestMain(m *testing.M) {
	testscript.Main(suite{m}, map[string]func(){
		"larder":       main,
		fakeECRCommand: fakeECRMain,
	})
}

// A suite is the package's tests, with what must hold around them.
type suite struct{ tests *testing.M }

// Run runs the tests and returns the exit status. It fails when a goroutine outlives them.
func (s suite) Run() int {
	var status int
	goleak.VerifyTestMain(s.tests, goleak.Cleanup(func(code int) { status = code }))
	if err := os.RemoveAll(imageBinaryDir); err != nil && status == 0 {
		status = 1
	}
	return status
}
