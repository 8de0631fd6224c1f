package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/larder-registry/larder/cmd/bench/internal/cases"
	"github.com/larder-registry/larder/cmd/bench/internal/lab"
	"github.com/larder-registry/larder/cmd/bench/internal/report"
	"github.com/larder-registry/larder/cmd/bench/internal/server"
	"github.com/larder-registry/larder/cmd/bench/internal/upstream"
)

// runCommand measures.
type runCommand struct {
	Cases        []string          `placeholder:"PATTERN" help:"Only the cases whose names match a pattern, such as warm,cold-*; bench list prints them."`
	Servers      []string          `placeholder:"NAME" help:"Only these servers: larder, nginx, distribution, direct, nginx-files, bare-go."`
	Rounds       int               `default:"3" help:"How many turns each server has in each case."`
	Quick        bool              `help:"A smoke test of a minute: small sizes, one round. Its figures mean nothing."`
	Format       string            `enum:"text,markdown,json" default:"text" help:"How the table is printed: ${enum}."`
	Fill         int64             `default:"10000000000" placeholder:"BYTES" help:"The size of the layer that is fetched in beside-fill."`
	Dir          string            `type:"existingdir" help:"The folder for the servers' folders; by default the system's folder for temporary files."`
	Larder       map[string]string `placeholder:"NAME=PATH" help:"Binaries of Larder to measure beside the one that is built, such as before=/tmp/larder."`
	Distribution string            `type:"existingfile" help:"The binary of distribution's registry; by default it is built from its module."`
}

// quickScale divides sizes, times and numbers in a quick run.
const quickScale = 16

// Run is the command.
func (c *runCommand) Run(p *invocation) (err error) {
	selected, err := cases.Select(cases.All(c.Fill), c.Cases)
	if err != nil {
		return err
	}
	programs, err := c.programs()
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp(c.Dir, "larder-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	up, err := upstream.Start(p.ctx, dir, false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, up.Close()) }()
	secure, err := upstream.Start(p.ctx, dir, true)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, secure.Close()) }()
	found := &report.Report{Machine: report.ThisMachine(), Command: c.commandLine(), Missing: make(map[string]string)}
	opts := lab.Options{Dir: dir, Upstream: up, Secure: secure, Rounds: c.Rounds, Scale: 1, Stderr: p.stderr, Report: found}
	if c.Quick {
		opts.Rounds, opts.Scale = 1, quickScale
	}
	l := lab.New(opts)
	if err := install(p.ctx, l, programs); err != nil {
		return err
	}
	err = l.RunAll(p.ctx, selected)
	if p.ctx.Err() != nil {
		err = errors.New("interrupted")
	}
	// The report is printed even if the rest failed: what was measured is valid.
	return errors.Join(err, report.Write(p.stdout, found, c.Format))
}

// programs returns the servers that the command line selects, in the order of the table.
func (c *runCommand) programs() ([]*server.Program, error) {
	all := []*server.Program{server.Larder(report.Larder, "")}
	for _, name := range slices.Sorted(maps.Keys(c.Larder)) {
		all = append(all, server.Larder(name, c.Larder[name]))
	}
	all = append(all, server.Nginx(), server.Distribution(c.Distribution), server.Direct(), server.NginxFiles(), server.Bare())
	if len(c.Servers) == 0 {
		return all, nil
	}
	for _, name := range c.Servers {
		if !slices.ContainsFunc(all, func(p *server.Program) bool { return p.Name() == name }) {
			return nil, fmt.Errorf("%q: no such server", name)
		}
	}
	return slices.DeleteFunc(all, func(p *server.Program) bool { return !slices.Contains(c.Servers, p.Name()) }), nil
}

// install prepares the programs and the tools.
func install(ctx context.Context, l *lab.Lab, programs []*server.Program) error {
	for _, p := range programs {
		if err := l.Install(ctx, p); err != nil {
			return err
		}
	}
	l.FindTools()
	return nil
}

// commandLine is the command that repeats the run.
func (c *runCommand) commandLine() string {
	line := "go run ./cmd/bench"
	if len(c.Cases) > 0 {
		line += " --cases " + strings.Join(c.Cases, ",")
	}
	if c.Rounds != 3 {
		line += fmt.Sprintf(" --rounds %d", c.Rounds)
	}
	if c.Quick {
		line += " --quick"
	}
	return line
}

// listCommand prints the cases.
type listCommand struct{}

// Run is the command.
func (listCommand) Run(p *invocation) error {
	for _, c := range cases.All(0) {
		if _, err := fmt.Fprintf(p.stdout, "%-15s %s\n", c.Name, c.About); err != nil {
			return err
		}
	}
	return nil
}
