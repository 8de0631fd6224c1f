package main

import (
	"fmt"
	"slices"
	"time"

	"github.com/larder-registry/larder/cmd/internal/daemon"
	"github.com/larder-registry/larder/cmd/larder/mirror"
	"github.com/larder-registry/larder/config"
	"github.com/larder-registry/larder/upstream/link"
)

// checkCommand is "larder check".
type checkCommand struct {
	settings
	ContainerdDir    string `help:"Folder of containerd's hosts.toml files on this machine." default:"/etc/containerd/certs.d" type:"path" placeholder:"DIR"`
	ContainerdConfig string `help:"Containerd's own configuration on this machine." default:"/etc/containerd/config.toml" type:"path" placeholder:"FILE"`
}

// Help is what kong shows below the usage.
func (*checkCommand) Help() string {
	return "Warnings are about values that are valid, but hardly meant. The exit status is 1 if there are mistakes.\n\nExample:\n\n" +
		"    larder check --config larder.yaml"
}

// Run reports every mistake, or sums the configuration up.
func (c *checkCommand) Run(p *invocation) error {
	cfg, source, err := c.load(p)
	if err != nil {
		return err
	}
	if err := daemon.CheckPolicy(cfg); err != nil {
		return err
	}
	for _, w := range cfg.Warnings {
		fmt.Fprintln(p.stderr, "warning:", w)
	}
	for _, file := range coolable(cfg).Fallbacks(c.ContainerdDir) {
		fmt.Fprintf(p.stderr, "warning: tags.cooldown: containerd asks the registry for what Larder refuses or does not answer, and gets the image that is delayed: "+
			"%s allows that; run \"larder mirror --only\"\n", file)
	}
	warnOfEvasion(p, cfg, c.ContainerdDir, c.ContainerdConfig)
	_, err = fmt.Fprintf(p.stdout, "%s is valid: listens on %s, caches in %s, %d upstreams\n",
		source, cfg.Listen, cfg.Cache.Dir, len(cfg.Upstreams))
	if rules := daemon.LinkRules(cfg); err == nil && rules != (link.Rules{}) {
		_, err = fmt.Fprintf(p.stdout, "link: %s\n", rules.Now(time.Now()))
	}
	return err
}

// warnOfEvasion tells where containerd gets from the registry what the policy refuses, unless it asks the verifier.
func warnOfEvasion(p *invocation, cfg *config.Config, containerdDir, containerdConfig string) {
	files := governed(cfg).Fallbacks(containerdDir)
	if len(files) == 0 {
		return
	}
	_, err := mirror.Verifier(containerdConfig, verifierCommand)
	if err == nil {
		return
	}
	for _, file := range files {
		fmt.Fprintf(p.stderr, "warning: policy: containerd asks the registry for what Larder refuses: %s allows that; "+
			"run \"larder mirror --only\", or have containerd ask %s (%v)\n", file, verifierCommand, err)
	}
}

// governed returns the mirror of this machine for the registries of which an enforced rule covers images.
func governed(cfg *config.Config) mirror.Mirror {
	return mirrorFor(cfg, func(u config.Upstream) bool {
		return slices.ContainsFunc(cfg.Policy, func(p config.Policy) bool {
			return p.Mode == config.PolicyEnforce && p.HasConditions() && p.Match.Host.Overlaps(u.Host)
		})
	})
}

// coolable returns the mirror of this machine for the registries whose tags a cooldown delays.
func coolable(cfg *config.Config) mirror.Mirror {
	return mirrorFor(cfg, func(u config.Upstream) bool {
		return slices.ContainsFunc(cfg.Tags.Cooldown, func(c config.Cooldown) bool { return c.Match.MayMatch(u.Host) })
	})
}

// mirrorFor returns the mirror of this machine for some of its registries.
func mirrorFor(cfg *config.Config, concerns func(config.Upstream) bool) mirror.Mirror {
	m := mirror.Mirror{URL: nodeURL(cfg)}
	for _, u := range cfg.Upstreams {
		switch {
		case !concerns(u):
		case u.Host.HasStar():
			m.Default = true
		default:
			m.Registries = append(m.Registries, string(u.Host))
		}
	}
	return m
}
