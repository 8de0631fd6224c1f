package process

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	readyTimeout = 30 * time.Second // for a server to accept connections
	stopTimeout  = 10 * time.Second // for a server to end after SIGTERM
	pollInterval = 10 * time.Millisecond
)

// A Process is a server under test, together with the processes that it starts.
type Process struct {
	name   string
	dir    string
	cmd    *exec.Cmd
	exited chan struct{}
	err    error // how the process ended; set before exited is closed
}

// Start starts a server. Its standard error, and its standard output unless cmd says where to write it, go to the file
// log in dir. The process gets a group of its own, so that Ctrl-C reaches the bench alone, and it ends with the bench.
func Start(name, dir string, cmd *exec.Cmd) (*Process, error) {
	p := &Process{name: name, dir: dir, cmd: cmd, exited: make(chan struct{})}
	log, err := os.Create(p.logFile())
	if err != nil {
		return nil, err
	}
	defer log.Close()
	if cmd.Stdout == nil {
		cmd.Stdout = log
	}
	cmd.Stderr = log
	cmd.SysProcAttr = ownGroup()
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() {
		defer close(p.exited)
		p.err = cmd.Wait()
	}()
	return p, nil
}

// Exited returns a channel that is closed when the process has ended.
func (p *Process) Exited() <-chan struct{} { return p.exited }

// AwaitPort returns when something accepts connections at addr. It returns an error if the process ends first, or if
// nothing listens there within 30 s.
func (p *Process) AwaitPort(ctx context.Context, addr string) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	var dialer net.Dialer
	for {
		conn, err := dialer.DialContext(ctx, "tcp", addr)
		if err == nil {
			return conn.Close()
		}
		select {
		case <-tick.C:
		case <-p.exited:
			return fmt.Errorf("%s ended before it was ready: %w\n%s", p.name, p.err, p.Tail())
		case <-ctx.Done():
			return fmt.Errorf("%s was not ready within %v: %w", p.name, readyTimeout, ctx.Err())
		}
	}
}

// Stop sends SIGTERM, and SIGKILL if the process has not ended 10 s later. The exit status is not checked. A process
// that ended before Stop was called is an error.
func (p *Process) Stop() error {
	select {
	case <-p.exited:
		return fmt.Errorf("%s ended before it was stopped: %w\n%s", p.name, p.err, p.Tail())
	default:
	}
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // an error says that the process has just ended
	select {
	case <-p.exited:
	case <-time.After(stopTimeout):
		_ = p.cmd.Process.Kill()
		<-p.exited
	}
	var exit *exec.ExitError
	if p.err != nil && !errors.As(p.err, &exit) {
		return fmt.Errorf("stop %s: %w", p.name, p.err)
	}
	return nil
}

// Tail returns the last 2,000 bytes of the process's log.
func (p *Process) Tail() string {
	const size = 2000
	b, err := os.ReadFile(p.logFile())
	if err != nil {
		return err.Error()
	}
	return string(bytes.TrimSpace(b[max(0, len(b)-size):]))
}

func (p *Process) logFile() string { return filepath.Join(p.dir, "log") }

// Usage returns the CPU time and memory that the process and its children have used so far.
func (p *Process) Usage() (Usage, error) {
	var sum Usage
	for _, pid := range p.pids() {
		one, err := usageOf(pid)
		if err != nil {
			return Usage{}, fmt.Errorf("read the usage of %s: %w", p.name, err)
		}
		sum.CPU += one.CPU
		sum.PeakMemory += one.PeakMemory
	}
	return sum, nil
}

// pids returns the process and its children. Grandchildren are left out: no server of the bench has any.
func (p *Process) pids() []int {
	root := p.cmd.Process.Pid
	pids := []int{root}
	threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", root)) // the pattern is valid
	for _, thread := range threads {
		children, err := os.ReadFile(thread)
		if err != nil {
			continue // the thread has ended
		}
		for field := range strings.FieldsSeq(string(children)) {
			if pid, err := strconv.Atoi(field); err == nil {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

const (
	idleStep    = 50 * time.Millisecond
	idleSteps   = 3
	idleTimeout = 20 * time.Second
)

// AwaitIdle returns when the process has used no CPU time for three steps of 50 ms. Work that a server does after its
// last answer is then part of its usage, and does not disturb the next measurement. A process that is not idle within
// 20 s is an error.
func (p *Process) AwaitIdle(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, idleTimeout)
	defer cancel()
	tick := time.NewTicker(idleStep)
	defer tick.Stop()
	before, err := p.Usage()
	for idle := 0; err == nil && idle < idleSteps; {
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s does not become idle: %w", p.name, ctx.Err())
		case <-tick.C:
		}
		var now Usage
		if now, err = p.Usage(); now.CPU == before.CPU {
			idle++
		} else {
			idle = 0
		}
		before = now
	}
	return err
}

// SystemCalls counts the system calls of the process and its children while load runs, with strace. It includes calls
// that the process makes in the background. Without strace it returns an error that matches exec.ErrNotFound.
func (p *Process) SystemCalls(ctx context.Context, load func() error) (int64, error) {
	return traceCalls(ctx, p.pids(), filepath.Join(p.dir, "strace"), load)
}
