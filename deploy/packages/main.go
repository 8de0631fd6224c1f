// Command packages builds Larder's deb and rpm packages from an existing binary:
//
//	CGO_ENABLED=0 go build -o larder ./cmd/larder
//	go run ./deploy/packages --version 1.2.3 --binary larder
//
// The packages of the same files are the same, byte for byte, but that an rpm names the machine that built it. Their files
// have the time of SOURCE_DATE_EPOCH (reproducible-builds.org), or else that of the Unix epoch.
package main

import (
	"context"
	"debug/buildinfo"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/alecthomas/kong"
	"github.com/goreleaser/nfpm/v2"
	_ "github.com/goreleaser/nfpm/v2/deb" // registers itself
	"github.com/goreleaser/nfpm/v2/files"
	_ "github.com/goreleaser/nfpm/v2/rpm"

	"github.com/larder-registry/larder/deploy/internal/manuals"
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
	Format  []string `help:"Package formats: deb, rpm." default:"deb,rpm" enum:"deb,rpm"`
	Out     string   `help:"Folder for the packages." default:"." type:"path"`
	Root    string   `help:"Root folder of the checkout." default:"." type:"existingdir"`
	Manuals string   `help:"Folder with the manual page and the completions. Default: they are made from the checkout." type:"existingdir"`
}

func main() {
	var o options
	parser := kong.Must(&o, kong.Description("Build Larder's deb and rpm packages."), kong.Vars{"arch": runtime.GOARCH})
	if _, err := parser.Parse(os.Args[1:]); err != nil {
		fmt.Fprintf(os.Stderr, "packages: %v\nTry --help.\n", err)
		os.Exit(2)
	}
	if err := o.run(context.Background(), os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "packages:", err)
		os.Exit(1)
	}
}

// run builds a package of each format and writes their paths to w.
func (o options) run(ctx context.Context, w io.Writer) error {
	if err := checkArch(o.Binary, o.Arch); err != nil {
		return err
	}
	stamp, err := sourceDate(os.Getenv("SOURCE_DATE_EPOCH"))
	if err != nil {
		return err
	}
	work, err := os.MkdirTemp("", "larder-packages-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(work) }()
	if err := o.writeManuals(ctx, work); err != nil {
		return err
	}
	for _, format := range o.Format {
		path, err := o.build(format, work, stamp)
		if err != nil {
			return fmt.Errorf("build a %s package: %w", format, err)
		}
		fmt.Fprintln(w, path)
	}
	return nil
}

// writeManuals fills a folder with the documents of a package that are not in the checkout as they are.
func (o options) writeManuals(ctx context.Context, dir string) error {
	if o.Manuals == "" {
		if err := manuals.Write(ctx, o.Root, o.Version, dir); err != nil {
			return err
		}
	} else if err := os.CopyFS(dir, os.DirFS(o.Manuals)); err != nil {
		return fmt.Errorf("copy the manuals: %w", err)
	}
	changes, err := os.ReadFile(filepath.Join(o.Root, "CHANGELOG.md"))
	if err != nil {
		return err
	}
	small, err := manuals.Compress(changes)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "changelog.gz"), small, 0o600)
}

// checkArch returns an error for a binary of Go that is for another architecture than the package.
func checkArch(binary, arch string) error {
	info, err := buildinfo.ReadFile(binary)
	if err != nil {
		return fmt.Errorf("%s is not a binary that Go built: %w", binary, err)
	}
	for _, s := range info.Settings {
		if s.Key == "GOARCH" && s.Value != arch {
			return fmt.Errorf("%s is for %s, and the package for %s: name its architecture with --arch", binary, s.Value, arch)
		}
		if s.Key == "GOOS" && s.Value != "linux" {
			return fmt.Errorf("%s is for %s: deb and rpm packages are for linux", binary, s.Value)
		}
	}
	return nil
}

// sourceDate is the time of all files in a package.
func sourceDate(text string) (time.Time, error) {
	if text == "" {
		return time.Unix(0, 0).UTC(), nil
	}
	seconds, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return time.Time{}, fmt.Errorf("SOURCE_DATE_EPOCH is %q: expected seconds since 1970", text)
	}
	return time.Unix(seconds, 0).UTC(), nil
}

// build builds one package. It leaves no file behind if it fails.
func (o options) build(format, manuals string, stamp time.Time) (path string, err error) {
	values := map[string]string{"VERSION": o.Version, "ARCH": o.Arch, "BINARY": o.Binary, "ROOT": o.Root, "MANUALS": manuals}
	config, err := nfpm.ParseWithEnvMapping(strings.NewReader(description), func(name string) string { return values[name] })
	if err != nil {
		return "", fmt.Errorf("read nfpm.yaml: %w", err)
	}
	script := func(name string) string { return filepath.Join(o.Root, "deploy", "packages", name) }
	config.Scripts = nfpm.Scripts{ // not in nfpm.yaml: nfpm does not expand variables in these paths
		PostInstall: script("postinstall.sh"), PreRemove: script("preremove.sh"), PostRemove: script("postremove.sh"),
	}
	info, err := config.Get(format)
	if err != nil {
		return "", err
	}
	packager, err := nfpm.Get(format)
	if err != nil {
		return "", err
	}
	info.MTime = stamp
	for _, file := range info.Contents {
		if file.FileInfo == nil {
			file.FileInfo = new(files.ContentFileInfo)
		}
		file.FileInfo.MTime = stamp
	}
	info = nfpm.WithDefaults(info)
	path = filepath.Join(o.Out, packager.ConventionalFileName(info))
	file, err := os.Create(path)
	if err != nil {
		return "", err
	}
	if err := errors.Join(packager.Package(info, file), file.Close()); err != nil {
		return "", errors.Join(err, os.Remove(path))
	}
	return path, nil
}
