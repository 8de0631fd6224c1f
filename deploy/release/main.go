// Command release builds everything that a release of Larder has, into one folder:
//
//	go run ./deploy/release --version v0.2.0 --out dist
//
// That is an archive for each system, deb and rpm packages, an SBOM of each binary, the arguments with which the image is
// built, and the checksums of all. Two runs on one machine at one commit give the same bytes. All files have the time of the
// commit, or of SOURCE_DATE_EPOCH if it is set (reproducible-builds.org).
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/alecthomas/kong"

	"github.com/larder-registry/larder/deploy/internal/manuals"
)

// options are the flags of the command.
type options struct {
	Version  string   `help:"Version, such as v0.2.0. Default: the tag of the commit." placeholder:"VERSION"`
	Out      string   `help:"Folder for the release. It must not exist, or be empty." default:"dist" type:"path"`
	Root     string   `help:"Root folder of the checkout." default:"." type:"existingdir"`
	Platform []string `help:"Systems to build for, as GOOS/GOARCH." default:"linux/amd64,linux/arm64,darwin/amd64,darwin/arm64" placeholder:"GOOS/GOARCH"`
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// run carries out one command line and returns the exit status: 2 for wrong usage.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	var o options
	exited := -1
	parser := kong.Must(&o, kong.Description("Build everything that a release of Larder has."), kong.Writers(stdout, stderr), kong.Exit(func(code int) { exited = code }))
	_, err := parser.Parse(args)
	switch {
	case exited >= 0: // --help
		return exited
	case err != nil:
		fmt.Fprintf(stderr, "release: %v\nTry --help.\n", err)
		return 2
	}
	if err := o.build(ctx, stdout); err != nil {
		fmt.Fprintln(stderr, "release:", err)
		return 1
	}
	return 0
}

// A release is one that is being built.
type release struct {
	options
	revision string // the commit
	stamp    time.Time
	manuals  string // folder
	progress io.Writer
}

// versions are those of semantic versioning, with the v that Go's modules have.
var versions = regexp.MustCompile(`^v[0-9]+\.[0-9]+\.[0-9]+(-[0-9A-Za-z.-]+)?$`)

func (o options) build(ctx context.Context, progress io.Writer) error {
	r, err := o.prepare(ctx, progress)
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(r.manuals) }()
	fmt.Fprintln(progress, "manual page and completions")
	if err := manuals.Write(ctx, r.Root, r.Version, r.manuals); err != nil {
		return err
	}
	for _, platform := range r.Platform {
		if err := r.buildFor(ctx, platform); err != nil {
			return fmt.Errorf("build for %s: %w", platform, err)
		}
	}
	if err := r.writeImageArguments(); err != nil {
		return err
	}
	return r.writeChecksums()
}

// prepare examines the checkout and makes the folders.
func (o options) prepare(ctx context.Context, progress io.Writer) (*release, error) {
	r := &release{options: o, progress: progress}
	var err error
	if r.revision, err = r.git(ctx, "rev-parse", "HEAD"); err != nil {
		return nil, err
	}
	if r.Version == "" {
		if r.Version, err = r.git(ctx, "describe", "--tags", "--exact-match", "HEAD"); err != nil {
			return nil, fmt.Errorf("this commit has no tag: name the version with --version: %w", err)
		}
	}
	if !versions.MatchString(r.Version) {
		return nil, fmt.Errorf("%q is not a version such as v0.2.0", r.Version)
	}
	seconds := os.Getenv("SOURCE_DATE_EPOCH")
	if seconds == "" {
		if seconds, err = r.git(ctx, "show", "--no-patch", "--format=%ct", "HEAD"); err != nil {
			return nil, err
		}
	}
	since, err := strconv.ParseInt(seconds, 10, 64)
	if err != nil {
		return nil, fmt.Errorf("SOURCE_DATE_EPOCH is %q: expected seconds since 1970", seconds)
	}
	r.stamp = time.Unix(since, 0).UTC()
	if entries, err := os.ReadDir(r.Out); err == nil && len(entries) > 0 {
		return nil, fmt.Errorf("%s is not empty: remove it, or name another folder with --out", r.Out)
	}
	if err := os.MkdirAll(r.Out, 0o750); err != nil {
		return nil, err
	}
	r.manuals, err = os.MkdirTemp("", "larder-release-")
	return r, err
}

func (r *release) git(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "git", args...)
	cmd.Dir = r.Root
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("git %s: %w", args[0], err)
	}
	return strings.TrimSpace(string(out)), nil
}

// buildFor builds the binary for a platform, its archive and SBOM, and on Linux its packages.
func (r *release) buildFor(ctx context.Context, platform string) error {
	system, arch, ok := strings.Cut(platform, "/")
	if !ok {
		return fmt.Errorf("expected GOOS/GOARCH, such as linux/amd64, got %q", platform)
	}
	fmt.Fprintln(r.progress, "larder for", platform)
	work, err := os.MkdirTemp("", "larder-release-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(work) }()
	binary := filepath.Join(work, "larder")
	// The flags are those of the Dockerfile, which a test compares.
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w -X main.version="+r.Version, "-o", binary, "./cmd/larder")
	cmd.Dir, cmd.Stderr = r.Root, r.progress
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS="+system, "GOARCH="+arch)
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("go build: %w", err)
	}
	name := fmt.Sprintf("larder_%s_%s_%s", strings.TrimPrefix(r.Version, "v"), system, arch)
	if err := r.writeArchive(filepath.Join(r.Out, name+".tar.gz"), name, binary); err != nil {
		return err
	}
	if err := writeSBOM(filepath.Join(r.Out, name+".cdx.json"), binary, r.Version, r.stamp); err != nil {
		return err
	}
	if system != "linux" {
		return nil
	}
	packages := exec.CommandContext(ctx, "go", "run", "./deploy/packages", "--version", strings.TrimPrefix(r.Version, "v"),
		"--binary", binary, "--arch", arch, "--out", r.Out, "--manuals", r.manuals)
	packages.Dir, packages.Stderr = r.Root, r.progress
	packages.Env = append(os.Environ(), "SOURCE_DATE_EPOCH="+strconv.FormatInt(r.stamp.Unix(), 10))
	if err := packages.Run(); err != nil {
		return fmt.Errorf("packages: %w", err)
	}
	return nil
}

// writeImageArguments writes the arguments for "docker buildx build", one a line.
func (r *release) writeImageArguments() error {
	text := fmt.Sprintf("VERSION=%s\nREVISION=%s\nSOURCE_DATE_EPOCH=%d\n", r.Version, r.revision, r.stamp.Unix())
	return os.WriteFile(filepath.Join(r.Out, "image.args"), []byte(text), 0o600)
}
