package server

import (
	"net/url"

	"github.com/larder-registry/larder/cmd/bench/internal/load"
	"github.com/larder-registry/larder/cmd/bench/internal/upstream"
)

// Direct is the upstream itself.
func Direct() *Program {
	return &Program{
		name:   "direct",
		target: func(t *load.Target, u *upstream.Upstream) { *t = directTarget(u) },
	}
}

func directTarget(u *upstream.Upstream) load.Target {
	endpoint, _ := url.Parse(u.Endpoint) // the fake ECR returns valid URLs
	return load.Target{Name: "direct", Addr: endpoint.Host, Authorization: u.Authorization(), Trust: u.Trust()}
}
