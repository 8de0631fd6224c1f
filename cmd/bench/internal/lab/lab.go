package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/larder-registry/larder/cmd/bench/internal/report"
	"github.com/larder-registry/larder/cmd/bench/internal/server"
	"github.com/larder-registry/larder/cmd/bench/internal/upstream"
)

// Options configure a lab.
type Options struct {
	Dir      string // for everything that servers store; the caller removes it
	Upstream *upstream.Upstream
	Secure   *upstream.Upstream // the same over TLS
	Rounds   int                // turns of each server in each case
	Scale    int64              // divides sizes, times and numbers; 1 for a real run
	Stderr   io.Writer          // for progress
	Report   *report.Report
}

// A Lab is one run. It is not safe for concurrent use.
type Lab struct {
	Options
	setup    Setup
	upstream *upstream.Upstream // of the case that is measured
	programs []*server.Program
}

// New returns a lab in which no program takes part yet.
func New(opts Options) *Lab {
	return &Lab{Options: opts, setup: Setup{Rounds: opts.Rounds, scale: opts.Scale}}
}

// Install prepares a program, which takes part from then on. One that is not there is reported as missing, unless it is
// Larder: that is an error.
func (l *Lab) Install(ctx context.Context, p *server.Program) error {
	l.progress("preparing %s", p.Name())
	if err := p.Install(ctx, l.Dir); err != nil {
		if p.Name() == report.Larder || ctx.Err() != nil {
			return err
		}
		l.Report.Missing[p.Name()], _, _ = strings.Cut(err.Error(), "\n")
		return nil
	}
	l.programs = append(l.programs, p)
	l.Report.Servers = append(l.Report.Servers, p.Name())
	return nil
}

// FindTools reports the tools that are missing, and what follows.
func (l *Lab) FindTools() {
	for tool, use := range map[string]string{
		"wrk":    "small requests come from connections of the bench's own, which cost more",
		"strace": "system calls are not counted",
	} {
		if _, err := exec.LookPath(tool); err != nil {
			l.Report.Missing[tool] = use
		}
	}
}

// RunAll measures cases. One that fails does not keep the others from being measured.
func (l *Lab) RunAll(ctx context.Context, cases []*Case) error {
	var failed error
	for _, c := range cases {
		began := time.Now()
		if err := l.run(ctx, c); err != nil {
			failed = errors.Join(failed, fmt.Errorf("case %s: %w", c.Name, err))
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		fmt.Fprintf(l.Stderr, "%-78s\n", fmt.Sprintf("%s took %v", c.Name, time.Since(began).Round(time.Second)))
	}
	return failed
}

// run measures one case.
func (l *Lab) run(ctx context.Context, c *Case) (err error) {
	l.upstream = l.Upstream
	if c.TLS {
		l.upstream = l.Secure
	}
	l.setup.upstream = l.upstream
	if err := l.upstream.SetLink(ctx, upstream.Link{}); err != nil {
		return err
	}
	var servers []*server.Server
	defer func() {
		for _, s := range servers {
			err = errors.Join(err, s.Close())
		}
	}()
	for _, p := range l.programs {
		if !c.takesPart(p.Name()) {
			continue
		}
		s, err := server.Start(ctx, p, l.Dir, l.upstream, c.MaxSize)
		if err != nil {
			return err
		}
		servers = append(servers, s)
	}
	if err := l.runRounds(ctx, c, servers); err != nil {
		if ctx.Err() == nil {
			for _, s := range servers {
				fmt.Fprintf(l.Stderr, "\nThe end of the log of %s:\n%s\n", s.Name(), s.Log())
			}
		}
		return err
	}
	return nil
}

// runRounds prepares a case and goes through its rounds. In each round every server has its turn; another one is first
// in each.
func (l *Lab) runRounds(ctx context.Context, c *Case, servers []*server.Server) error {
	turn, err := c.Prepare(ctx, &l.setup, servers)
	if err != nil {
		return fmt.Errorf("prepare: %w", err)
	}
	if err := l.upstream.SetLink(ctx, c.Link); err != nil {
		return err
	}
	rounds := c.rounds(l.Rounds)
	for round := range rounds {
		for i := range servers {
			s := servers[(i+round)%len(servers)]
			l.progress("%s, round %d of %d: %s", c.Name, round+1, rounds, s.Name())
			if err := l.measure(ctx, c, s, round, turn); err != nil {
				return err
			}
			if c.StaysBusy {
				if err := s.Close(); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// measure has a server do one turn, and adds to the report what was measured.
func (l *Lab) measure(ctx context.Context, c *Case, s *server.Server, round int, turn Turn) error {
	if err := syncDisk(l.Dir); err != nil {
		return err
	}
	if err := s.AwaitIdle(ctx); err != nil {
		return err
	}
	if _, err := l.upstream.TakeSent(ctx); err != nil {
		return err
	}
	before, measured, err := s.Usage()
	if err != nil {
		return err
	}
	out, err := turn(ctx, s, round)
	if err != nil {
		return err
	}
	if !c.StaysBusy {
		if err := s.AwaitIdle(ctx); err != nil {
			return err
		}
	}
	after, _, err := s.Usage()
	if err != nil {
		return err
	}
	sent, err := l.upstream.TakeSent(ctx)
	if err != nil {
		return err
	}
	if measured {
		out.addUsage(after.CPU-before.CPU, after)
	}
	out.addSent(sent)
	l.Report.Add(c.Case, s.Name(), out.Measures)
	return nil
}

// progress shows on a terminal what the lab does, in one line that the next call replaces.
func (l *Lab) progress(format string, args ...any) {
	if f, ok := l.Stderr.(*os.File); ok {
		if _, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ); err == nil {
			fmt.Fprintf(f, "%-78s\r", fmt.Sprintf(format, args...))
		}
	}
}
