package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/larder-registry/larder/config"
)

// Exit statuses.
const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2
)

// invocation is what a command works with.
type invocation struct {
	ctx            context.Context
	env            []string // without fileEnv
	fileEnv        []string // variables of larder.env that env does not have
	stdin          io.Reader
	stdout, stderr io.Writer
	verbose        bool // say which files are used
}

// environ returns the environment with the variables of larder.env.
func (p *invocation) environ() []string { return slices.Concat(p.fileEnv, p.env) }

// usageError is a mistake in the arguments that the parser cannot find.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// exitStatus prints a command's error, if there is one, and returns the exit
// status. The mistakes of a configuration are printed as they are, one a line.
func exitStatus(stderr io.Writer, err error) int {
	var mistakes config.Mistakes
	var usage usageError
	switch {
	case err == nil:
		return exitDone
	case errors.As(err, &mistakes):
		fmt.Fprintln(stderr, mistakes)
	default:
		fmt.Fprintln(stderr, "larder:", err)
	}
	if errors.As(err, &usage) {
		return exitUsage
	}
	return exitFailed
}
