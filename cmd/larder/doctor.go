package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/larder-registry/larder/cmd/internal/daemon"
	"github.com/larder-registry/larder/cmd/internal/daemon/share"
	"github.com/larder-registry/larder/cmd/larder/doctor"
	"github.com/larder-registry/larder/cmd/larder/mirror"
	"github.com/larder-registry/larder/config"
	"github.com/larder-registry/larder/upstream/name"
)

// doctorCommand is "larder doctor".
type doctorCommand struct {
	folder
	JSON             bool          `name:"json" help:"Print the steps as a JSON array, when all are done."`
	Timeout          time.Duration `help:"How long each step may take." default:"10s" placeholder:"DURATION"`
	Image            string        `arg:"" optional:"" help:"An image to pull the beginning of: <host>/<repository>:<tag> or @<digest>. Short names are completed as Docker does. Without an image, the upstreams that are not patterns are examined."`
	ContainerdDir    string        `help:"Folder of containerd's hosts.toml files on this machine." default:"/etc/containerd/certs.d" type:"path" placeholder:"DIR"`
	ContainerdConfig string        `help:"Containerd's own configuration on this machine." default:"/etc/containerd/config.toml" type:"path" placeholder:"FILE"`
}

// Help is what kong shows below the usage.
func (*doctorCommand) Help() string {
	return "The exit status is 1 if a step failed.\n\nExamples:\n\n" +
		"    larder doctor\n" +
		"    larder doctor 123456789012.dkr.ecr.eu-central-1.amazonaws.com/team/app:v1"
}

// Run examines everything between here and the upstreams. The exit status is that of
// a failure if a step failed.
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
	var show func(doctor.Step)
	if !c.JSON {
		show = showStep(p.stdout)
	}
	settings := settings{Config: c.Config, CacheDir: c.CacheDir}
	steps := doctor.Examine(p.ctx, doctor.Options{
		Load: func() (*config.Config, string, error) {
			return settings.load(p)
		},
		Image:     image,
		Fallbacks: func(cfg *config.Config) []string { return governed(cfg).Fallbacks(c.ContainerdDir) },
		Verifier:  func() (string, error) { return mirror.Verifier(c.ContainerdConfig, verifierCommand) },
		Peers:     func(ctx context.Context, cfg *config.Config) (share.Check, error) { return checkPeers(ctx, p, cfg) },
		Bucket:    daemon.TryBucket,
		Timeout:   c.Timeout,
		Show:      show,
	})
	if c.JSON {
		if err := printJSON(p.stdout, steps); err != nil {
			return err
		}
	}
	var failed int
	for _, s := range steps {
		if s.Status == doctor.Failed {
			failed++
		}
	}
	if failed > 0 {
		return fmt.Errorf("%d of %d steps failed", failed, len(steps))
	}
	return p.ctx.Err()
}

// checkPeers has the daemon greet other nodes. If none runs, this process does.
func checkPeers(ctx context.Context, p *invocation, cfg *config.Config) (found share.Check, err error) {
	c, err := running(p, cfg)
	if errors.Is(err, daemon.ErrNotRunning) || errors.Is(err, daemon.ErrSocketPath) {
		return share.CheckConfigured(ctx, cfg.Peers)
	}
	if err != nil {
		return share.Check{}, err
	}
	err = c.do(ctx, http.MethodGet, "peers/check", nil, &found)
	return found, errors.Join(err, c.close())
}

// showStep prints each step on a line when it is done, under a heading for each
// upstream.
func showStep(w io.Writer) func(doctor.Step) {
	symbols := map[doctor.Status]string{doctor.OK: "✓", doctor.Failed: "✗", doctor.Warning: "!", doctor.Skipped: "–"}
	var upstream string
	return func(s doctor.Step) {
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
