// Command larder is a node-local pull-through cache for container images.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	_ "time/tzdata" // link.background.hours are in local time, and containers have no zones of their own

	"github.com/alecthomas/kong"

	"github.com/larder-registry/larder/cmd/larder/completion"
	"github.com/larder-registry/larder/cmd/larder/mirror"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	if filepath.Base(os.Args[0]) == verifierCommand {
		os.Exit(verifyForContainerd(ctx, os.Args[1:], os.Environ(), os.Stdin, os.Stdout, os.Stderr))
	}
	os.Exit(run(ctx, os.Args[1:], os.Environ(), os.Stdin, os.Stdout, os.Stderr))
}

// commands is the command line.
type commands struct {
	Serve     serveCommand     `cmd:"" help:"Serve images to clients, from the cache and from the upstreams behind it."`
	Check     checkCommand     `cmd:"" help:"Check the configuration and report every mistake at once, with its line."`
	Doctor    doctorCommand    `cmd:"" help:"Find out what works between this machine and the upstreams: DNS, credentials, token, pull."`
	Ls        lsCommand        `cmd:"" help:"List the images in the cache."`
	Stats     statsCommand     `cmd:"" help:"Show how full the cache is, and what the daemon has done."`
	Pin       pinCommand       `cmd:"" help:"Keep images and everything they need from being evicted."`
	Unpin     unpinCommand     `cmd:"" help:"Allow pinned images to be evicted again."`
	Rm        rmCommand        `cmd:"" help:"Remove images now, and free what no other image needs."`
	Warm      warmCommand      `cmd:"" help:"Fetch images before anyone asks for them."`
	Offline   offlineCommand   `cmd:"" help:"Ask upstreams no more: serve what is cached, and answer 404 to the rest."`
	Online    onlineCommand    `cmd:"" help:"Ask upstreams again that are offline."`
	Access    accessCommand    `cmd:"" help:"Show or forget what upstreams said about the credentials of clients."`
	Peers     peersCommand     `cmd:"" help:"Show the nodes that share what they fetch, or make a key for them."`
	Verify    verifyCommand    `cmd:"" help:"Show what the policy says about an image."`
	Scrub     scrubCommand     `cmd:"" help:"Compare everything in the cache with its digest now."`
	Prepare   prepareCommand   `cmd:"" help:"As root, create the cache folder and give it to the user that will run the daemon."`
	Export    exportCommand    `cmd:"" help:"Write images into a file that carries them to a site without a link."`
	Import    importCommand    `cmd:"" help:"Take images from files that were carried here."`
	Inventory inventoryCommand `cmd:"" help:"Write what this site has into a file, for \"larder export --missing-from\"."`
	Mirror    mirrorCommand    `cmd:"" help:"Make this node's container runtime pull through Larder."`
	Version   versionCommand   `cmd:"" help:"Print the version."`

	Completion completionCommand `cmd:"" help:"Print a script with which a shell completes larder's commands and flags."`
	Man        manCommand        `cmd:"" hidden:"" help:"Print the manual page, for packages."`

	Verbose     bool             `short:"v" help:"Say on standard error which configuration is used."`
	ShowVersion kong.VersionFlag `name:"version" help:"Print the version."`
}

// run carries out one command line and returns the exit status.
func run(ctx context.Context, args, env []string, stdin io.Reader, stdout, stderr io.Writer) int {
	var cli commands
	exited := -1
	parser, err := kong.New(&cli,
		kong.Name("larder"),
		kong.Description("A node-local pull-through cache for container images, made for Amazon ECR."),
		kong.Writers(stdout, stderr),
		kong.Vars{
			"runtimes":     strings.Join(mirror.Runtimes(), ", "),
			"shells":       strings.Join(completion.Shells(), ","),
			"systemConfig": systemConfig,
			"version":      versionLine(),
		},
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
	if command.Command() != "serve" { // whose keys may be empty, as --admin ''
		if err := checkEmpty(args); err != nil {
			return exitStatus(stderr, err)
		}
	}
	return exitStatus(stderr, command.Run(&invocation{ctx: ctx, env: env, stdin: stdin, stdout: stdout, stderr: stderr, verbose: cli.Verbose}))
}

// checkEmpty returns an error for an argument that is empty. It comes from a variable of the
// shell that is not set, and the parser drops it: --verify "$KEY" would verify nothing.
func checkEmpty(args []string) error {
	for i, arg := range args {
		flag, value, isFlag := strings.Cut(arg, "=")
		switch {
		case arg == "" && i > 0:
			return usageError{fmt.Errorf("the argument after %q is empty: is a variable of the shell not set?", args[i-1])}
		case strings.HasPrefix(flag, "-") && isFlag && value == "":
			return usageError{fmt.Errorf("%s has an empty value: is a variable of the shell not set?", flag)}
		}
	}
	return nil
}
