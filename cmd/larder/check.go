package main

import "fmt"

// checkCommand is "larder check".
type checkCommand struct {
	settings
}

// Run reports every mistake, or sums the configuration up.
func (c *checkCommand) Run(p *invocation) error {
	cfg, err := c.load(p.env)
	if err != nil {
		return err
	}
	source := c.file(p.env)
	if source == "" {
		source = "the default configuration"
	}
	_, err = fmt.Fprintf(p.stdout, "%s is valid: listens on %s, caches in %s, %d upstreams\n",
		source, cfg.Listen, cfg.Cache.Dir, len(cfg.Upstreams))
	return err
}
