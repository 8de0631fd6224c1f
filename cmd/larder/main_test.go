package main

import (
	"flag"
	"os"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"go.uber.org/goleak"
)

// repository is the module's root, seen from this package's folder, where go test runs its tests.
const repository = "../.."

// TestMain puts commands on the PATH, each of them this test binary under another name: larder for the CLI scripts, and
// the fake ECR and a bad peer, which the end-to-end tests start as processes.
func TestMain(m *testing.M) {
	testscript.Main(suite{m}, map[string]func(){
		"larder":        main,
		verifierCommand: main,
		fakeECRCommand:  fakeECRMain,
		badPeerCommand:  badPeerMain,
	})
}

// A suite is the package's tests, with what must hold around them.
type suite struct{ tests *testing.M }

// parallel is how many of the parallel tests run at once, unless a flag of go test says it. They mostly wait for other
// programs, so it may be more than there are processors.
const parallel = "8"

// Run runs the tests and returns the exit status. It fails when a goroutine outlives them.
func (s suite) Run() int {
	if err := flag.Set("test.parallel", parallel); err != nil { // before the flags are parsed
		panic(err)
	}
	var status int
	goleak.VerifyTestMain(s.tests, goleak.Cleanup(func(code int) { status = code }))
	if err := os.RemoveAll(imageBinaryDir); err != nil && status == 0 {
		status = 1
	}
	return status
}
