package process_test

import (
	"context"
	"net"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/larder-registry/larder/cmd/bench/internal/process"
)

// start runs a shell script. Without stop the test ends it.
func start(t *testing.T, script string) *process.Process {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "sh", "-c", script)
	p, err := process.Start("the script", t.TempDir(), cmd)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { <-p.Exited() }) // the test's context has ended before
	return p
}

func TestUsageIncludesChildren(t *testing.T) {
	p := start(t, "trap 'kill $!' TERM; while :; do :; done & wait")
	defer func() { // and not in a cleanup: the test's context ends before, and kills the script alone
		if err := p.Stop(); err != nil {
			t.Error(err)
		}
	}()
	const want = 50 * time.Millisecond
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); {
		usage, err := p.Usage()
		if err != nil {
			t.Fatal(err)
		}
		if usage.CPU >= want && usage.PeakMemory > 0 {
			return
		}
	}
	t.Errorf("the CPU time of a child is not counted")
}

func TestProcessThatSleepsIsIdle(t *testing.T) {
	p := start(t, "exec sleep 60")
	if err := p.AwaitIdle(t.Context()); err != nil {
		t.Error(err)
	}
	if err := p.Stop(); err != nil {
		t.Error(err)
	}
}

func TestAwaitIdleEndsWithItsContext(t *testing.T) {
	p := start(t, "exec sleep 60")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := p.AwaitIdle(ctx); err == nil {
		t.Error("no error after the end of its context")
	}
	if err := p.Stop(); err != nil {
		t.Error(err)
	}
}

func TestStopReportsAProcessThatEndedBefore(t *testing.T) {
	p := start(t, "echo out of memory >&2; exit 3")
	<-p.Exited()
	err := p.Stop()
	if err == nil || !strings.Contains(err.Error(), "exit status 3") || !strings.Contains(err.Error(), "out of memory") {
		t.Errorf("%v does not have the exit status and the log", err)
	}
}

func TestAwaitPort(t *testing.T) {
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := start(t, "exec sleep 60")
	if err := p.AwaitPort(t.Context(), l.Addr().String()); err != nil {
		t.Error(err)
	}
	if err := p.Stop(); err != nil {
		t.Error(err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if err := p.AwaitPort(t.Context(), l.Addr().String()); err == nil || !strings.Contains(err.Error(), "ended before it was ready") {
		t.Errorf("%v for a process that has ended", err)
	}
}

func TestSystemCallsAreCounted(t *testing.T) {
	if _, err := exec.LookPath("strace"); err != nil {
		t.Skip("strace is not installed")
	}
	p := start(t, "while read -r line; do :; done </dev/zero")
	n, err := p.SystemCalls(t.Context(), func() error {
		before, err := p.Usage()
		for now := before; err == nil && now.CPU == before.CPU; {
			now, err = p.Usage()
		}
		return err
	})
	if err != nil {
		t.Skipf("strace may not attach here: %v", err)
	}
	if n == 0 {
		t.Error("a process that reads makes no system calls")
	}
	if err := p.Stop(); err != nil {
		t.Error(err)
	}
}

func TestFreeAddrsAreDifferent(t *testing.T) {
	addrs, err := process.FreeAddrs(t.Context(), 4)
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(addrs)
	if got := len(slices.Compact(addrs)); got != 4 {
		t.Errorf("%d different addresses, want 4", got)
	}
}
