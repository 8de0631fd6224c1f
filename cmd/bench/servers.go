package main

import (
	"github.com/larder-registry/larder/cmd/bench/internal/bare"
	"github.com/larder-registry/larder/cmd/bench/internal/upstream"
)

// upstreamCommand is the process of the fake ECR.
type upstreamCommand struct {
	TLS bool
}

// Run is the command.
func (c upstreamCommand) Run(p *invocation) error {
	return upstream.Serve(p.ctx, c.TLS, p.stdin, p.stdout)
}

// bareCommand is the process of the bare Go server.
type bareCommand struct {
	Listen        string
	Dir           string
	Upstream      string
	Authorization string
}

// Run is the command.
func (c *bareCommand) Run(p *invocation) error {
	return bare.Serve(p.ctx, bare.Options{Listen: c.Listen, Dir: c.Dir, Upstream: c.Upstream, Authorization: c.Authorization})
}
