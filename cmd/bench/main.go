// Command bench measures Larder beside other servers: the same load, in the same run, in turn. It starts everything
// itself, on loopback: a fake ECR, Larder, nginx, distribution's registry, and a bare Go server as the floor. Each is a
// process of its own, so that the operating system counts what each uses.
//
// A run goes from the command line through these packages, each of which knows only those below it:
//
//	run.go             flags, the selection of cases and servers, the report's format
//	internal/cases     what is measured
//	internal/lab       rounds and turns, and what servers used in them
//	internal/server    the servers: Larder, nginx, distribution, the bare server, the upstream itself
//	internal/load      the clients
//	internal/upstream  the fake ECR and its images
//	internal/process   processes and their usage
//	internal/report    samples, the table and the verdicts
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/alecthomas/kong"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	os.Exit(run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// Exit statuses.
const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2
)

// commands is the command line. The hidden commands are servers that bench starts as processes of their own.
type commands struct {
	Run      runCommand      `cmd:"" default:"withargs" help:"Measure, and print the table and the verdicts."`
	List     listCommand     `cmd:"" help:"Print the cases."`
	Upstream upstreamCommand `cmd:"" hidden:""`
	Bare     bareCommand     `cmd:"" hidden:""`
}

// invocation is the input of a command beside its flags.
type invocation struct {
	ctx            context.Context
	stdin          io.Reader
	stdout, stderr io.Writer
}

// run executes a command line and returns the exit status: 0 if it measured, whatever the verdicts are; 1 if it could
// not; 2 if the usage is wrong.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	var line commands
	exited := -1
	parser, err := kong.New(&line,
		kong.Name("bench"),
		kong.Description("Measures Larder beside nginx, distribution's registry, a bare Go server, and pulls straight from the "+
			"upstream, in turn, on this machine. It needs the Go toolchain; servers and tools that are not installed are reported as missing. "+
			"A whole run takes a quarter of an hour, and up to 20 GB of disk; --quick takes a minute."),
		kong.Writers(stdout, stderr),
		kong.Exit(func(code int) { exited = code }),
	)
	if err != nil {
		fmt.Fprintln(stderr, "bench:", err)
		return exitFailed
	}
	parsed, err := parser.Parse(args)
	switch {
	case exited >= 0: // --help
		return exited
	case err != nil:
		fmt.Fprintf(stderr, "bench: %v\nTry \"bench --help\".\n", err)
		return exitUsage
	}
	if err := parsed.Run(&invocation{ctx, stdin, stdout, stderr}); err != nil {
		fmt.Fprintln(stderr, "bench:", err)
		return exitFailed
	}
	return exitDone
}
