package main

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"net/url"

	"github.com/larder-registry/larder/cmd/internal/daemon"
	"github.com/larder-registry/larder/proxy/access"
	"github.com/larder-registry/larder/upstream/name"
)

// accessCommand is "larder access".
type accessCommand struct {
	Ls     accessLsCommand     `cmd:"" help:"List what upstreams said about the credentials of clients, without the credentials."`
	Forget accessForgetCommand `cmd:"" help:"Forget it, so that the upstreams are asked again at once."`
}

// errNoAccess is the error of a command that no daemon can answer.
var errNoAccess = errors.New("no daemon runs: start it, as it alone knows what upstreams said about clients")

// accessLsCommand is "larder access ls".
type accessLsCommand struct {
	folder
	JSON bool `name:"json" help:"Print everything that is known, as a JSON array."`
}

// Help is what kong shows below the usage.
func (*accessLsCommand) Help() string {
	return "An upstream with access: client is asked whether a client's own credential may pull from a repository. " +
		"CREDENTIAL is the beginning of a keyed hash, which tells the credentials of one user apart. " +
		"A line without a repository says that the upstream knows the login."
}

// Run lists the decisions.
func (c *accessLsCommand) Run(p *invocation) error {
	return c.with(p, func(client *client) error {
		if client.alone {
			return errNoAccess
		}
		var all []access.Decision
		if err := client.do(p.ctx, http.MethodGet, "access", nil, &all); err != nil {
			return err
		}
		if c.JSON {
			return printJSON(p.stdout, all)
		}
		t := table{spare: "CREDENTIAL"}
		t.add("REPOSITORY", "USER", "CREDENTIAL", "RIGHT", "ALLOWED", "SINCE")
		for _, d := range all {
			repository, user, right, allowed := d.Upstream, d.User, cmp.Or(string(d.Right), "pull"), "no"
			if d.Repository != "" {
				repository += "/" + d.Repository
			}
			if user == "" {
				user = nothing
			}
			if d.Allowed {
				allowed = "yes"
			}
			t.add(repository, user, d.Credential, right, allowed, age(d.At))
		}
		return t.write(p.stdout, terminalWidth(p.stdout))
	})
}

// accessForgetCommand is "larder access forget".
type accessForgetCommand struct {
	folder
	Upstream string  `help:"Only what this upstream said." placeholder:"HOST"`
	User     *string `help:"Only about credentials of this user; an empty name means anonymous clients and identity tokens." placeholder:"NAME"`
}

// Help is what kong shows below the usage.
func (*accessForgetCommand) Help() string {
	return "What an upstream said is believed for access.recheck. After rights were taken away there, forget it: the next request of each client asks the upstream. " +
		"While an upstream cannot be asked, clients about whom it was forgotten get nothing of it."
}

// Run forgets decisions.
func (c *accessForgetCommand) Run(p *invocation) error {
	query := url.Values{}
	if c.Upstream != "" {
		host, ok := name.ParseRegistry(c.Upstream)
		if !ok {
			return usageError{fmt.Errorf("--upstream %q: expected a host", c.Upstream)}
		}
		query.Set("upstream", host)
	}
	if c.User != nil {
		query.Set("user", *c.User)
	}
	return c.with(p, func(client *client) error {
		if client.alone {
			return errNoAccess
		}
		var done daemon.Forgotten
		if err := client.do(p.ctx, http.MethodDelete, "access", query, &done); err != nil {
			return err
		}
		_, err := fmt.Fprintf(p.stdout, "%d decisions forgotten\n", done.Decisions)
		return err
	})
}
