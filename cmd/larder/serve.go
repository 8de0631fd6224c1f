package main

import (
	"errors"

	"github.com/larder-registry/larder/cmd/internal/daemon"
)

// serveCommand is "larder serve".
type serveCommand struct {
	settings
}

// Run serves until the context ends, then drains.
func (c *serveCommand) Run(p *invocation) error {
	cfg, err := c.load(p.env)
	if err != nil {
		return err
	}
	useProcessors(p.env)
	d, err := daemon.New(p.ctx, cfg, daemon.Options{
		Version:        currentVersion(),
		Env:            p.env,
		Log:            daemon.NewLogger(cfg.Log, p.stderr),
		ServiceManager: true,
	})
	if err != nil {
		return err
	}
	return errors.Join(d.Serve(p.ctx), d.Close())
}
