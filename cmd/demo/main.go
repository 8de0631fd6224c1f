// Command demo is a tour of Larder that needs nothing but Go: it starts a fake ECR and Larder in front of it, pulls images
// through both, and prints the time of each pull and the bytes that the upstream sent. With --nodes it shows a roll-out
// instead: nodes that share what they fetch, and the bytes between them. It ends by itself. The exit status is 0 only if
// every step held.
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
	// A reader that stops, such as head, ends the tour too, and the tour still cleans up.
	ctx, unpipe := signal.NotifyContext(context.Background(), syscall.SIGPIPE)
	defer unpipe()
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// Exit statuses.
const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2
)

// flags is the command line.
type flags struct {
	Keep  bool `help:"Leave everything running after the tour, and print commands to try. Ctrl-C ends it." xor:"what"`
	Log   bool `help:"Print Larder's log on standard error."`
	Nodes int  `help:"Show a roll-out instead: this many nodes (2 to 12) pull an image at once and share what they fetch." placeholder:"N" xor:"what"`
}

// Validate is for kong.
func (f flags) Validate() error {
	if f.Nodes != 0 && (f.Nodes < 2 || f.Nodes > maxNodes) {
		return fmt.Errorf("--nodes: from 2 to %d nodes can be shown", maxNodes)
	}
	return nil
}

// run carries out one command line and returns the exit status: 0 every step held, 1 a step failed or the tour did not
// finish, 2 the usage is wrong.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	return runWith(ctx, args, options{unit: 1_000_000, steps: steps()}, stdout, stderr)
}

// runWith is run for another tour, whose flags it takes from args.
func runWith(ctx context.Context, args []string, opts options, stdout, stderr io.Writer) int {
	exited := -1
	parser, err := kong.New(&opts.flags,
		kong.Name("demo"),
		kong.Description("A tour of Larder: a fake ECR, Larder in front of it, and real pulls through both. "+
			"It needs no network, no credentials and no configuration, and leaves nothing behind."),
		kong.Writers(stdout, stderr),
		kong.Exit(func(code int) { exited = code }),
	)
	if err != nil {
		fmt.Fprintln(stderr, "demo:", err)
		return exitFailed
	}
	_, err = parser.Parse(args)
	switch {
	case exited >= 0: // --help
		return exited
	case err != nil:
		fmt.Fprintf(stderr, "demo: %v\nTry \"demo --help\".\n", err)
		return exitUsage
	}
	show := conduct
	if opts.Nodes != 0 {
		show = rollOut
	}
	if err := show(ctx, opts, stdout, stderr); err != nil {
		fmt.Fprintln(stderr, "demo:", err)
		return exitFailed
	}
	return exitDone
}
