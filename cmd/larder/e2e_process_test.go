package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// On a machine that is busy with other tests. Only a test that fails waits so long.
	clientTimeout = 3 * time.Minute // for one command of a client
	stopTimeout   = 2 * time.Minute // for a daemon to end
	readyTimeout  = 2 * time.Minute // for a daemon to be ready

	pollInterval = 20 * time.Millisecond
)

// A process is a daemon under test. The test that starts it need not end it.
type process struct {
	name   string
	cmd    *exec.Cmd
	log    string // file with its standard error; empty if that is no file
	exited chan struct{}
	err    error // how it ended; settled when exited is closed
}

// start runs a daemon, which ends with the test at the latest. Its log is shown if the test fails.
func start(t testing.TB, cmd *exec.Cmd) *process {
	t.Helper()
	log, err := os.CreateTemp(t.TempDir(), filepath.Base(cmd.Path)+"-*.log")
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	p := startWith(t, cmd, log)
	p.log = log.Name()
	return p
}

// startWith is start with a given standard error, which the caller closes.
func startWith(t testing.TB, cmd *exec.Cmd, stderr *os.File) *process {
	t.Helper()
	p := &process{name: filepath.Base(cmd.Path), cmd: cmd, exited: make(chan struct{})}
	cmd.Stderr = stderr
	if err := cmd.Start(); err != nil {
		t.Fatalf("starting %s: %v", p.name, err)
	}
	go func() {
		defer close(p.exited)
		p.err = cmd.Wait()
	}()
	t.Cleanup(func() {
		_ = p.stop(syscall.SIGTERM)
		if t.Failed() && p.log != "" {
			t.Logf("what %s logged:\n%s", p.name, p.logged())
		}
	})
	return p
}

// stop sends a signal and waits until the process has ended, by force when it takes too long. It returns how the
// process ended, which is nil for exit status 0, and does nothing more to one that has already ended.
func (p *process) stop(signal syscall.Signal) error {
	select {
	case <-p.exited:
		return p.err
	default:
	}
	_ = p.cmd.Process.Signal(signal) // it may have ended just now
	select {
	case <-p.exited:
	case <-time.After(stopTimeout):
		_ = p.cmd.Process.Kill()
		<-p.exited
	}
	return p.err
}

// await calls ready until it is true, and fails the test if that takes too long or the process ends before.
func (p *process) await(t testing.TB, ready func(context.Context) bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), readyTimeout)
	defer cancel()
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for !ready(ctx) {
		select {
		case <-tick.C:
		case <-p.exited:
			t.Fatalf("%s ended before it was ready: %v", p.name, p.err)
		case <-ctx.Done():
			t.Fatalf("%s was not ready within %v", p.name, readyTimeout)
		}
	}
}

// runs reports whether the process has not ended.
func (p *process) runs() bool {
	select {
	case <-p.exited:
		return false
	default:
		return true
	}
}

func (p *process) logged() string {
	b, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// shortTempDir is t.TempDir with a shorter name. The path of a socket may have 107 bytes.
func shortTempDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "l-") //nolint:usetesting // a test's name makes its folder's path too long
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		err := os.RemoveAll(dir)
		// Podman leaves a process behind that cleans up after a container, and may still write.
		for end := time.Now().Add(stopTimeout); errors.Is(err, unix.ENOTEMPTY) && time.Now().Before(end); err = os.RemoveAll(dir) {
			<-time.After(pollInterval)
		}
		if err != nil {
			t.Error(err)
		}
	})
	return dir
}

// environ is the environment of every process that a test starts. It has none of the caller's variables that could
// give a client another configuration, credentials or a proxy.
func environ(t testing.TB, extra ...string) []string {
	t.Helper()
	home := t.TempDir()
	return append([]string{
		"PATH=" + os.Getenv("PATH"),
		"HOME=" + home,
		"XDG_CONFIG_HOME=" + home,
		"XDG_RUNTIME_DIR=" + home,
		"TMPDIR=" + home,
		"LARDER_CONFIG=", // the machine's own is not used
	}, extra...)
}

// output runs one command of a client and returns its standard output. A failure fails the test and shows the output.
func output(t *testing.T, env []string, program string, args ...string) string {
	t.Helper()
	out, err := tryRun(t, env, program, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// tryRun is output for a command that may fail.
func tryRun(t *testing.T, env []string, program string, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), clientTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = env
	cmd.WaitDelay = stopTimeout // a child that it left behind may hold its output open
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", &commandError{cmd: cmd, err: err, output: stdout.String() + stderr.String()}
	}
	return stdout.String(), nil
}

// A commandError is the failure of a client's command, with its output.
type commandError struct {
	cmd    *exec.Cmd
	err    error
	output string
}

func (e *commandError) Error() string {
	return strings.Join(e.cmd.Args, " ") + ": " + e.err.Error() + "\n" + e.output
}

func (e *commandError) Unwrap() error { return e.err }
