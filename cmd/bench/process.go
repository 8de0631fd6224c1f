package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

const (
	readyTimeout = 30 * time.Second // for a server to open for business
	stopTimeout  = 10 * time.Second // for one that was told to end
	pollInterval = 10 * time.Millisecond
)

// A process is a server under test, with all the processes that it starts.
type process struct {
	name   string
	cmd    *exec.Cmd
	log    string // file with all it wrote
	exited chan struct{}
	err    error // how it ended; settled when exited is closed
}

// startProcess runs a server whose output goes to a log in dir.
func startProcess(name, dir string, cmd *exec.Cmd) (*process, error) {
	p := &process{name: name, cmd: cmd, log: filepath.Join(dir, "log"), exited: make(chan struct{})}
	log, err := os.Create(p.log)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	if cmd.Stdout == nil {
		cmd.Stdout = log
	}
	cmd.Stderr = log
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Setpgid:   true,            // Ctrl-C is for the bench, which ends them in its own time
		Pdeathsig: syscall.SIGTERM, // nor do they outlive it
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() {
		defer close(p.exited)
		p.err = cmd.Wait()
	}()
	return p, nil
}

// awaitPort returns when something accepts connections at addr.
func (p *process) awaitPort(ctx context.Context, addr string) error {
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
			return fmt.Errorf("%s ended before it was ready: %w\n%s", p.name, p.err, p.tail())
		case <-ctx.Done():
			return fmt.Errorf("%s was not ready within %v: %w", p.name, readyTimeout, ctx.Err())
		}
	}
}

// stop ends the process, by force where it takes too long.
func (p *process) stop() error {
	select {
	case <-p.exited:
		return fmt.Errorf("%s had ended before it was told to: %w\n%s", p.name, p.err, p.tail())
	default:
	}
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have ended just now
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

// tail returns the end of what the process logged.
func (p *process) tail() string {
	const most = 2000
	b, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	return string(bytes.TrimSpace(b[max(0, len(b)-most):]))
}

// freeAddrs returns addresses of loopback that nobody listens on, each another one. Somebody may take them before they are
// used, and then the server says so.
func freeAddrs(ctx context.Context, n int) (addrs []string, err error) {
	for range n {
		l, e := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
		if e != nil {
			return nil, e
		}
		defer func() { err = errors.Join(err, l.Close()) }() // no sooner, or the next would be the same
		addrs = append(addrs, l.Addr().String())
	}
	return addrs, nil
}
