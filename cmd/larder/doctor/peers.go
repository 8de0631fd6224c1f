package doctor

import (
	"context"
	"fmt"
	"strings"

	"github.com/larder-registry/larder/cmd/internal/daemon/share"
	"github.com/larder-registry/larder/config"
)

// maxNamed is how many nodes with the same problem are named.
const maxNamed = 3

// problem is how a problem with other nodes is told.
type problem struct {
	kind   share.Problem
	status Status
	says   string // of the nodes' addresses
	advice string
}

// problems are all, the worst first.
var problems = []problem{
	{
		share.Stranger, Failed, "have another key",
		"Put the same key into peers.key_file on all nodes: compare the files' sha256sum. While keys are replaced, each file has both.",
	},
	{
		share.Unreachable, Failed, "cannot be connected to",
		"Let the port of peers.listen through between the nodes over TCP, and the port after it over TCP and UDP; look whether Larder runs there.",
	},
	{
		share.Foreign, Warning, "do not speak the protocol of this release",
		"Upgrade them, or this node. Until then neither asks the other, and each asks the registry.",
	},
	{
		share.Silent, Warning, "do not answer",
		"Look at their logs and their load.",
	},
	{
		share.Unknown, Warning, "answer, and gossip does not tell of them",
		"Let the port after that of peers.listen through between the nodes, over TCP and UDP. A node that has just started is known within a minute.",
	},
	{
		share.UnknownTo, Warning, "do not know this node",
		"Let the port after that of peers.listen through to this node, over TCP and UDP, and look whether peers.advertise is its address.",
	},
	{
		share.Rights, Warning, "may read other images than this node",
		"All holders of a key are one principal. Give nodes with another role_arn or allow another key.",
	},
	{
		share.Clock, Warning, "have another time",
		"Set the clocks by NTP: how old a tag is, and when an image was first seen, is told between nodes.",
	},
}

// checkPeers finds out whether other nodes can be asked. Without peers in the configuration there is no such step.
func checkPeers(e *examination, cfg *config.Config, greet func(context.Context, *config.Config) (share.Check, error)) {
	if greet == nil || !cfg.Peers.On() {
		return
	}
	e.step("peers", nil, func(ctx context.Context) finding {
		found, err := greet(ctx, cfg)
		if err != nil {
			return failed(err, "Correct the key file, which must belong to the daemon's user with mode 0600, and restart the daemon: \"larder peers key\" makes a key.")
		}
		return peersFinding(found)
	})
}

func peersFinding(c share.Check) finding {
	var fine int
	with := make(map[share.Problem][]share.Greeting)
	versions := make(map[string]bool)
	for _, g := range c.Greeted {
		if g.Problem == "" {
			fine++
		} else {
			with[g.Problem] = append(with[g.Problem], g)
		}
		if g.Version != "" {
			versions[g.Version] = true
		}
	}
	said := []string{fmt.Sprintf("%d of %d nodes that were greeted answer", fine, len(c.Greeted))}
	if c.Self != "" {
		said = append(said, fmt.Sprintf("this one is %s%s and knows %d others, %d of them in its zone", c.Self, inZone(c.Zone), c.Known, c.OfZone))
	}
	if len(versions) > 1 || len(versions) == 1 && c.Version != "" && !versions[c.Version] {
		said = append(said, "versions differ")
	}
	f := finding{status: OK}
	for _, p := range problems {
		some := with[p.kind]
		if len(some) == 0 {
			continue
		}
		said = append(said, named(some)+" "+p.says)
		status := p.status
		if status == Failed && fine > 0 {
			status = Warning // others can be asked
		}
		if f.advice == "" {
			f.status, f.advice = status, p.advice
		}
	}
	for _, name := range c.Unresolved {
		said = append(said, "peers.join: "+name)
		if f.advice == "" {
			f.status, f.advice = Warning, "Correct peers.join, or the name server's answer: the name must have the address of each node."
		}
	}
	if len(c.Greeted) == 0 && f.advice == "" {
		f.status, f.advice = Warning, "This node is alone. If there are others, name the gossip of some of them in peers.join."
	}
	f.detail = strings.Join(said, "\n")
	return f
}

// inZone says which zone a node is in.
func inZone(zone string) string {
	if zone == "" {
		return ", in no zone,"
	}
	return ", in the zone " + zone + ","
}

// named names some nodes, with what they answered.
func named(some []share.Greeting) string {
	var names []string
	for _, g := range some[:min(len(some), maxNamed)] {
		switch {
		case g.Problem == share.Clock:
			names = append(names, fmt.Sprintf("%s (%+.0f s)", g.Address, g.Ahead))
		case g.Problem == share.Foreign && g.Version != "":
			names = append(names, fmt.Sprintf("%s (%s)", g.Address, g.Version))
		default:
			names = append(names, g.Address)
		}
	}
	if more := len(some) - maxNamed; more > 0 {
		names = append(names, fmt.Sprintf("%d more", more))
	}
	return strings.Join(names, ", ")
}
