package main

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
)

// upstreams are the arguments of a command about upstreams.
type upstreams struct {
	folder
	All   bool     `help:"All configured upstreams."`
	Hosts []string `arg:"" optional:"" name:"host" help:"The host of an upstream, or its pattern as in the configuration, such as *.dkr.ecr.*.amazonaws.com."`
}

// set has the daemon set them offline or online, and prints what was done.
func (u *upstreams) set(p *invocation, method, done string) error {
	hosts := u.Hosts
	switch {
	case u.All && len(hosts) > 0:
		return usageError{errors.New("--all: expected without hosts")}
	case u.All:
		hosts = []string{""}
	case slices.Contains(hosts, ""): // as of a variable that is not set
		return usageError{errors.New("a host is empty: expected the hosts of upstreams, or --all")}
	case len(hosts) == 0:
		return usageError{errors.New("expected the hosts of upstreams, or --all")}
	}
	return u.with(p, func(client *client) error {
		if client.alone {
			return errors.New("no daemon runs: what it will not ask is set by upstreams[].offline in its configuration")
		}
		var errs error
		for _, host := range hosts {
			query := url.Values{}
			what := "all upstreams are"
			if host != "" {
				query.Set("host", host)
				what = host + " is"
			}
			err := client.do(p.ctx, method, "offline", query, nil)
			if err == nil {
				_, err = fmt.Fprintf(p.stdout, "%s %s until the daemon restarts or reads its configuration again\n", what, done)
			}
			errs = errors.Join(errs, err)
		}
		return errs
	})
}

// offlineCommand is "larder offline".
type offlineCommand struct {
	upstreams
}

// Help is what kong shows below the usage.
func (c *offlineCommand) Help() string {
	return "An upstream that is offline is not asked, and its name is not looked up. What is cached is served, " +
		"tags however old they are, and a request for anything else is answered with 404 at once. Transfers that run are broken off, and are resumed later.\n\n" +
		"This lasts until the daemon restarts or reads its configuration again. upstreams[].offline in the configuration holds beyond that.\n\nExamples:\n\n" +
		"    larder offline docker.io\n" +
		"    larder offline --all"
}

// Run sets upstreams offline.
func (c *offlineCommand) Run(p *invocation) error { return c.set(p, http.MethodPut, "offline") }

// onlineCommand is "larder online".
type onlineCommand struct {
	upstreams
}

// Help is what kong shows below the usage.
func (c *onlineCommand) Help() string {
	return "This lasts until the daemon restarts or reads its configuration again, so that an upstream with offline: true in the configuration is not asked after a restart.\n\nExamples:\n\n" +
		"    larder online docker.io '*.dkr.ecr.*.amazonaws.com'\n" +
		"    larder online --all"
}

// Run sets upstreams online.
func (c *onlineCommand) Run(p *invocation) error { return c.set(p, http.MethodDelete, "online") }
