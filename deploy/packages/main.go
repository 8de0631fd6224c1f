// Command packages builds Larder's deb and rpm packages from an existing binary:
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

// description is nfpm's configuration. run fills in its ${…} variables.
//
//go:embed nfpm.yaml
var description string

// options are the flags of the command.
type options struct {
	Version string   `required:"" help:"Version of the packages, such as 1.2.3."`
	Binary  string   `required:"" help:"The larder binary to package." type:"existingfile"`
	Arch    string   `help:"Architecture of the binary, as in GOARCH." default:"${arch}"`
	Format  []string `help:"Package formats: deb, rpm." default:"deb,rpm"`
	Out     string   `help:"Folder for the packages." default:"." type:"path"`
	Root    string   `help:"Root folder of the checkout." default:"." type:"existingdir"`
}

func main() {
	var o options
	ctx := kong.Parse(&o, kong.Description("Build Larder's deb and rpm packages."), kong.Vars{"arch": runtime.GOARCH})
	ctx.FatalIfErrorf(o.run(os.Stdout))
}

// run builds a package of each format and writes their paths to w.
func (o options) run(w io.Writer) error {
	values := map[string]string{"VERSION": o.Version, "ARCH": o.Arch, "BINARY": o.Binary, "ROOT": o.Root}
	config, err := nfpm.ParseWithEnvMapping(strings.NewReader(description), func(name string) string { return values[name] })
	if err != nil {
		return fmt.Errorf("read nfpm.yaml: %w", err)
	}
	script := func(name string) string { return filepath.Join(o.Root, "deploy", "packages", name) }
	config.Scripts = nfpm.Scripts{ // not in nfpm.yaml: nfpm does not expand variables in these paths
		PostInstall: script("postinstall.sh"), PreRemove: script("preremove.sh"), PostRemove: script("postremove.sh"),
	}
	for _, format := range o.Format {
		path, err := build(config, format, o.Out)
		if err != nil {
			return fmt.Errorf("build a %s package: %w", format, err)
		}
		fmt.Fprintln(w, path)
	}
	return nil
}

// build builds one package in dir. It leaves no file behind if it fails.
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
