package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"
)

// runCommand measures.
type runCommand struct {
	Cases        []string          `placeholder:"PATTERN" help:"Only the cases whose names match one of these, such as warm,cold-*; bench list prints them."`
	Servers      []string          `placeholder:"NAME" help:"Only these servers: larder, nginx, distribution, direct, nginx-files, bare-go."`
	Rounds       int               `default:"3" help:"How many turns each server has in each case."`
	Quick        bool              `help:"A smoke of a minute: small sizes, one round. Its figures mean nothing."`
	Format       string            `enum:"text,markdown,json" default:"text" help:"How the table is printed: ${enum}."`
	Fill         int64             `default:"10000000000" placeholder:"BYTES" help:"The size of the layer that is fetched in beside-fill."`
	Dir          string            `type:"existingdir" help:"Where the servers' folders are made; the system's folder for temporary files, if not given."`
	Larder       map[string]string `placeholder:"NAME=PATH" help:"Binaries of Larder to measure beside the one that is built, such as before=/tmp/larder."`
	Distribution string            `type:"existingfile" help:"The binary of distribution's registry; built from its module, if not given."`
}

// quickScale is what sizes and times are divided by for a smoke.
const quickScale = 16

// Run is the command.
func (c *runCommand) Run(p *invocation) (err error) {
	selected, err := selectScenarios(scenarios(c.Fill), c.Cases)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp(c.Dir, "larder-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	l := &lab{dir: dir, rounds: c.Rounds, scale: 1, stderr: p.stderr}
	if c.Quick {
		l.rounds, l.scale = 1, quickScale
	}
	l.report = report{machine: thisMachine(), command: c.commandLine(), missing: make(map[string]string)}
	if err := l.gather(p.ctx, c.contenders(), c.Servers); err != nil {
		return err
	}
	if l.upstream, err = startUpstream(p.ctx, dir); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.upstream.close()) }()
	err = l.runAll(p.ctx, selected)
	if p.ctx.Err() != nil {
		err = errors.New("interrupted")
	}
	// What was measured is worth having, whatever came of the rest.
	return errors.Join(err, l.report.write(p.stdout, c.Format))
}

// runAll goes through the scenarios. One that fails does not keep the others from being measured.
func (l *lab) runAll(ctx context.Context, selected []*scenario) error {
	var failed error
	for _, sc := range selected {
		began := time.Now()
		if err := l.run(ctx, sc); err != nil {
			failed = errors.Join(failed, fmt.Errorf("case %s: %w", sc.name, err))
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		fmt.Fprintf(l.stderr, "%-78s\n", fmt.Sprintf("%s took %v", sc.name, time.Since(began).Round(time.Second)))
	}
	return failed
}

// commandLine is how to have the same again.
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

func (c *runCommand) contenders() []*contender {
	all := []*contender{larder(ours, "")}
	for _, name := range sortedKeys(c.Larder) {
		all = append(all, larder(name, c.Larder[name]))
	}
	return append(all, nginxProxy(), distribution(c.Distribution), direct(), nginxStatic(), bare())
}

// gather prepares who takes part, and notes who is missing.
func (l *lab) gather(ctx context.Context, all []*contender, names []string) error {
	for _, name := range names {
		if !slices.ContainsFunc(all, func(c *contender) bool { return c.name == name }) {
			return fmt.Errorf("%q: %w", name, errUnknown)
		}
	}
	for _, c := range all {
		if len(names) > 0 && !slices.Contains(names, c.name) {
			continue
		}
		if c.begin != nil {
			l.progress("preparing %s", c.name)
			if err := c.begin(ctx, l); err != nil {
				if c.name == ours || ctx.Err() != nil {
					return err
				}
				l.report.missing[c.name] = firstLine(err)
				continue
			}
		}
		l.contenders = append(l.contenders, c)
		l.report.servers = append(l.report.servers, c.name)
	}
	for tool, use := range map[string]string{
		"wrk":    "small requests come from connections of the bench's own, which cost more",
		"strace": "system calls are not counted",
	} {
		if _, err := exec.LookPath(tool); err != nil {
			l.report.missing[tool] = use
		}
	}
	return nil
}

func firstLine(err error) string {
	line, _, _ := strings.Cut(err.Error(), "\n")
	return line
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// listCommand prints the cases.
type listCommand struct{}

// Run is the command.
func (listCommand) Run(p *invocation) error {
	for _, sc := range scenarios(0) {
		if _, err := fmt.Fprintf(p.stdout, "%-15s %s\n", sc.name, sc.about); err != nil {
			return err
		}
	}
	return nil
}
