// Command packages makes Larder's deb and rpm packages of a binary that was
// built before:
//
//	CGO_ENABLED=0 go build -o larder ./cmd/larder
//	go run ./deploy/packages --version 1.2.3 --binary larder
package main

import (
	_ "embed"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/alecthomas/kong"
	"github.com/goreleaser/nfpm/v2"
	_ "github.com/goreleaser/nfpm/v2/deb" // registers itself
	_ "github.com/goreleaser/nfpm/v2/rpm"
)

//go:embed nfpm.yaml
var description string

// options are the command line.
type options struct {
	Version string   `required:"" help:"Version of the packages, such as 1.2.3."`
	Binary  string   `required:"" help:"The larder to put into them." type:"existingfile"`
	Arch    string   `help:"The processor that it was built for, as Go calls it." default:"${arch}"`
	Format  []string `help:"deb, rpm." default:"deb,rpm"`
	Out     string   `help:"Where the packages go." default:"." type:"path"`
	Root    string   `help:"The checkout." default:"." type:"existingdir"`
}

func main() {
	var o options
	ctx := kong.Parse(&o, kong.Description("Make Larder's deb and rpm packages."), kong.Vars{"arch": runtime.GOARCH})
	ctx.FatalIfErrorf(o.run(os.Stdout))
}

// run makes a package of each format and prints their paths.
func (o options) run(w io.Writer) error {
	values := map[string]string{"VERSION": o.Version, "ARCH": o.Arch, "BINARY": o.Binary, "ROOT": o.Root}
	config, err := nfpm.ParseWithEnvMapping(strings.NewReader(description), func(name string) string { return values[name] })
	if err != nil {
		return fmt.Errorf("read nfpm.yaml: %w", err)
	}
	script := func(name string) string { return filepath.Join(o.Root, "deploy", "packages", name) }
	config.Scripts = nfpm.Scripts{ // in which the library does not replace ${ROOT}
		PostInstall: script("postinstall.sh"), PreRemove: script("preremove.sh"), PostRemove: script("postremove.sh"),
	}
	for _, format := range o.Format {
		path, err := build(config, format, o.Out)
		if err != nil {
			return fmt.Errorf("make a %s package: %w", format, err)
		}
		fmt.Fprintln(w, path)
	}
	return nil
}

func build(config nfpm.Config, format, dir string) (path string, err error) {
	info, err := config.Get(format)
	if err != nil {
		return "", err
	}
	packager, err := nfpm.Get(format)
	if err != nil {
		return "", err
	}
	info = nfpm.WithDefaults(info)
	path = filepath.Join(dir, packager.ConventionalFileName(info))
	file, err := os.Create(path)
	if err != nil {
		return "", err
	}
	if err := errors.Join(packager.Package(info, file), file.Close()); err != nil {
		return "", errors.Join(err, os.Remove(path))
	}
	return path, nil
}
