package server

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/larder-registry/larder/cmd/bench/internal/load"
	"github.com/larder-registry/larder/cmd/bench/internal/upstream"
)

// A Program is something to pull images from. Its functions may be nil.
type Program struct {
	name string
	// install finds or builds its binary, once, in dir.
	install func(ctx context.Context, dir string) error
	// command returns the command that serves on an empty folder. It is nil for what runs anyway.
	command func(ctx context.Context, in place) (*exec.Cmd, error)
	// target completes what clients need to know.
	target func(t *load.Target, u *upstream.Upstream)
	// scrub has a running server check everything it stores.
	scrub func(ctx context.Context, in place) error
	// fileOf returns where it looks for the file of a tag or a digest, if it serves files that are put there.
	fileOf func(in place, reference string) string
}

// place is what a program is given to run.
type place struct {
	dir      string // its own, empty
	addr     string // to listen on
	admin    string // a second address, for those that need one
	maxSize  int64  // bytes that it may store; 0 for its default
	upstream *upstream.Upstream
}

// Name is how the table calls it, and --servers.
func (p *Program) Name() string { return p.name }

// Install finds or builds the binary. An error says that the program is missing, and why.
func (p *Program) Install(ctx context.Context, dir string) error {
	if p.install == nil {
		return nil
	}
	return p.install(ctx, dir)
}

// findOrBuild returns an install function: path is the binary, and is built if it is empty.
func findOrBuild(path *string, name string, build func(ctx context.Context, path string) error) func(context.Context, string) error {
	return func(ctx context.Context, dir string) error {
		if *path != "" {
			_, err := os.Stat(*path)
			return err
		}
		*path = filepath.Join(dir, name)
		return build(ctx, *path)
	}
}
