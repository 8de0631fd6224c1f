// Command fakeecr is an Amazon ECR registry on this machine, to try Larder or any other client without an AWS account. It
// serves images from OCI layouts with ECR's tokens, redirects and errors. Flags make it slow or make requests fail.
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
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// Exit statuses.
const (
	exitDone   = 0 // it has served until ctx ended
	exitFailed = 1
	exitUsage  = 2 // the command line is wrong
)

// run carries out one command line until ctx ends, and returns the exit status.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	var opts flags
	exited := -1
	parser, err := kong.New(&opts,
		kong.Name("fakeecr"),
		kong.Description("A fake Amazon ECR that serves images from OCI layouts: folders, or tars as docker save and skopeo write them. "+
			"It answers as ECR does, requires ECR's tokens, and ends at Ctrl-C."),
		kong.Writers(stdout, stderr),
		kong.Exit(func(code int) { exited = code }),
	)
	if err != nil {
		fmt.Fprintln(stderr, "fakeecr:", err)
		return exitFailed
	}
	_, err = parser.Parse(args)
	switch {
	case exited >= 0: // --help
		return exited
	case err != nil:
		fmt.Fprintf(stderr, "fakeecr: %v\nTry \"fakeecr --help\".\n", err)
		return exitUsage
	}
	if err := serve(ctx, opts, stdout); err != nil {
		fmt.Fprintln(stderr, "fakeecr:", err)
		return exitFailed
	}
	return exitDone
}
