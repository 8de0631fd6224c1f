package process

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
)

// FreeAddrs returns n different loopback addresses on which nothing listens. Another process may take one before it is
// used; the server that should listen there then reports it.
func FreeAddrs(ctx context.Context, n int) (addrs []string, err error) {
	for range n {
		l, e := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
		if e != nil {
			return nil, e
		}
		defer func() { err = errors.Join(err, l.Close()) }() // after the last, or two addresses could be equal
		addrs = append(addrs, l.Addr().String())
	}
	return addrs, nil
}

// Run runs a program to its end, with env added to this process's environment. The error contains the program's output.
func Run(ctx context.Context, env []string, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", cmd, err, out)
	}
	return nil
}

// SelfEnv is set in the environment of the commands that Self returns. A test binary whose environment has it must run
// the bench's main instead of its tests.
const SelfEnv = "LARDER_BENCH_MAIN"

// Self returns a command that runs this program again with other arguments.
func Self(ctx context.Context, args ...string) (*exec.Cmd, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, self, args...)
	cmd.Env = append(os.Environ(), SelfEnv+"=1")
	return cmd, nil
}
