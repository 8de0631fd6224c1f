package main

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/larder-registry/larder/cmd/internal/daemon/share"
	"github.com/larder-registry/larder/cmd/larder/format"
	"github.com/larder-registry/larder/upstream/peer/ring"
)

// peersCommand is "larder peers".
type peersCommand struct {
	Ls  peersLsCommand  `cmd:"" default:"withargs" help:"List the nodes of the cluster that the daemon knows, and those that it avoids."`
	Key peersKeyCommand `cmd:"" help:"Print a new key for a cluster."`
}

// peersLsCommand is "larder peers ls", and "larder peers".
type peersLsCommand struct {
	folder
	JSON bool `name:"json" help:"Print everything that is known, as JSON."`
}

// Help is what kong shows below the usage.
func (*peersLsCommand) Help() string {
	return "Nodes share what they fetch within a zone. GIVEN is what this node has given to another one since its start, and TAKEN what it has taken from it. A node that does not answer, or that sent wrong content, is not asked for a while: STATE says why."
}

// Run lists the nodes.
func (c *peersLsCommand) Run(p *invocation) error {
	return c.with(p, func(client *client) error {
		if client.alone {
			return errors.New("no daemon runs: start it, as it alone knows the other nodes")
		}
		var known share.Status
		if err := client.do(p.ctx, http.MethodGet, "peers", nil, &known); err != nil {
			return err
		}
		if c.JSON {
			return printJSON(p.stdout, known)
		}
		t := table{spare: "STATE"}
		t.add("NODE", "ZONE", "VERSION", "GIVEN", "TAKEN", "STATE")
		for _, n := range known.Nodes {
			t.add(n.Address, orNothing(n.Zone), orNothing(n.Version), moved(n.Given), moved(n.Taken), nodeState(n, known.Avoided))
		}
		if err := t.write(p.stdout, terminalWidth(p.stdout)); err != nil {
			return err
		}
		_, err := fmt.Fprintf(p.stdout, "\ngiven to others %s, taken from them %s since the start\n", format.Size(known.Given), format.Size(known.Taken))
		return err
	})
}

// nodeState says what can be expected of a node.
func nodeState(n share.Node, avoided []share.Avoided) string {
	var states []string
	if n.Self {
		states = append(states, "this node")
	}
	if n.Differs {
		states = append(states, "has other rights: give it another key")
	}
	if n.Draining {
		states = append(states, "about to stop")
	}
	blobs := 0
	for _, a := range avoided {
		switch {
		case a.Address != n.Address:
		case a.Blob != "":
			blobs++
		default:
			states = append(states, fmt.Sprintf("avoided for %v: %s", time.Until(a.Until).Round(time.Second), a.Why))
		}
	}
	if blobs > 0 {
		states = append(states, fmt.Sprintf("avoided for %d blobs", blobs))
	}
	return orNothing(strings.Join(states, ", "))
}

// moved formats how many bytes went one way.
func moved(bytes int64) string {
	if bytes == 0 {
		return nothing
	}
	return format.Size(bytes)
}

func orNothing(s string) string {
	if s == "" {
		return nothing
	}
	return s
}

// peersKeyCommand is "larder peers key".
type peersKeyCommand struct{}

// Help is what kong shows below the usage.
func (*peersKeyCommand) Help() string {
	return "Put it into the file of peers.key_file on each node, with mode 0600. While a key is replaced, the file has both, one a line: " +
		"first add the new one as the second line everywhere, then make it the first line everywhere, then remove the old one."
}

// Run prints a key.
func (*peersKeyCommand) Run(p *invocation) error {
	_, err := fmt.Fprintln(p.stdout, ring.NewKey().Encode())
	return err
}
