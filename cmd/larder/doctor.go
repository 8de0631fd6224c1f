package main

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/larder-registry/larder/config"
	"github.com/larder-registry/larder/upstream/name"
)

// doctorCommand is "larder doctor".
type doctorCommand struct {
	folder
	JSON    bool          `name:"json" help:"Print the steps as a JSON array, when all are done."`
	Timeout time.Duration `help:"How long each step may take." default:"10s" placeholder:"DURATION"`
	Image   string        `arg:"" optional:"" help:"An image to pull the beginning of: <host>/<repository>:<tag> or @<digest>. Short names are completed as Docker does. Without one, the upstreams that are not patterns are looked at."`
}

// Run looks at everything between here and the upstreams, step by step. It needs
// no daemon, and leaves one alone.
func (c *doctorCommand) Run(p *invocation) error {
	if c.Timeout <= 0 {
		return usageError{errors.New("--timeout: a duration above 0 is needed")}
	}
	var image name.Image
	if c.Image != "" {
		var err error
		if image, err = name.ParseShortImage(c.Image); err != nil {
			return usageError{err}
		}
	}
	show := showStep(p.stdout)
	if c.JSON {
		show = func(Step) {}
	}
	e := newExamination(p.ctx, c.Timeout, show)
	e.configuration(settings{Config: c.Config, CacheDir: c.CacheDir}, p.env, func(cfg *config.Config) {
		e.cacheFolder(cfg)
		e.proxies()
		e.upstreams(cfg, image)
	})
	if c.JSON {
		if err := printJSON(p.stdout, e.steps); err != nil {
			return err
		}
	}
	if n := e.count(stepFailed); n > 0 {
		return fmt.Errorf("%d of %d steps failed", n, len(e.steps))
	}
	return p.ctx.Err()
}

// showStep prints each step on a line when it is done, under a heading for each
// upstream.
func showStep(w io.Writer) func(Step) {
	symbols := map[stepStatus]string{stepOK: "✓", stepFailed: "✗", stepWarning: "!", stepSkipped: "–"}
	var upstream string
	return func(s Step) {
		if s.Upstream != upstream {
			upstream = s.Upstream
			fmt.Fprintf(w, "\n%s\n", upstream)
		}
		const indent = "                  " // as wide as a symbol and a name
		fmt.Fprintf(w, "%s %-15s %s\n", symbols[s.Status], s.Name, strings.ReplaceAll(s.Detail, "\n", "\n"+indent))
		if s.Advice != "" {
			fmt.Fprintf(w, "%s→ %s\n", indent, s.Advice)
		}
	}
}
