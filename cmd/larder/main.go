// Command larder is a node-local pull-through cache for container images.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/alecthomas/kong"

	"github.com/larder-registry/larder/cmd/larder/mirror"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	os.Exit(run(ctx, os.Args[1:], os.Environ(), os.Stdout, os.Stderr))
}

// commands is the command line.
type commands struct {
	Serve   serveCommand   `cmd:"" help:"Serve images to clients, from the cache and from the upstreams behind it."`
	Check   checkCommand   `cmd:"" help:"Check the configuration and report every mistake at once, with its line."`
	Doctor  doctorCommand  `cmd:"" help:"Find out what works between this machine and the upstreams: DNS, credentials, token, pull."`
	Ls      lsCommand      `cmd:"" help:"List the images in the cache."`
	Stats   statsCommand   `cmd:"" help:"Show how full the cache is, and what the daemon has done."`
	Pin     pinCommand     `cmd:"" help:"Keep images and everything they need from being evicted."`
	Unpin   unpinCommand   `cmd:"" help:"Allow pinned images to be evicted again."`
	Rm      rmCommand      `cmd:"" help:"Remove images now, and free what no other image needs."`
	Scrub   scrubCommand   `cmd:"" help:"Compare everything in the cache with its digest now."`
	Prepare prepareCommand `cmd:"" help:"As root, create the cache folder and give it to the user that will run the daemon."`
	Mirror  mirrorCommand  `cmd:"" help:"Make this node's container runtime pull through Larder."`
	Version versionCommand `cmd:"" help:"Print the version."`
}

// run carries out one command line and returns the exit status.
func run(ctx context.Context, args, env []string, stdout, stderr io.Writer) int {
	var cli commands
	exited := -1
	parser, err := kong.New(&cli,
		kong.Name("larder"),
		kong.Description("A node-local pull-through cache for container images, made for Amazon ECR."),
		kong.Writers(stdout, stderr),
		kong.Vars{"runtimes": strings.Join(mirror.Runtimes(), ", ")},
		kong.Exit(func(code int) { exited = code }),
	)
	if err != nil {
		fmt.Fprintln(stderr, "larder:", err)
		return exitFailed
	}
	if len(args) == 0 {
		args = []string{"--help"}
	}
	command, err := parser.Parse(args)
	switch {
	case exited >= 0: // --help
		return exited
	case err != nil:
		fmt.Fprintf(stderr, "larder: %v\nTry \"larder --help\".\n", err)
		return exitUsage
	}
	return exitStatus(stderr, command.Run(&invocation{ctx, env, stdout, stderr}))
}
