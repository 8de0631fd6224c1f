package main

import (
	"log/slog"
	"os"

	"github.com/larder-registry/larder/proxy"
	"github.com/larder-registry/larder/upstream"
)

// newPage returns the status page of this daemon.
func newPage(handler *proxy.Proxy, client *upstream.Client, log *slog.Logger) *proxy.Page {
	name, err := os.Hostname()
	if err != nil {
		log.Warn("the status page has no name", "error", err)
	}
	return proxy.NewPage(proxy.PageOptions{
		Proxy: handler,
		Upstreams: func() []proxy.UpstreamStatus {
			var all []proxy.UpstreamStatus
			for _, st := range client.Status() {
				all = append(all, proxy.UpstreamStatus(st))
			}
			return all
		},
		Name:    name,
		Version: currentVersion(),
		Log:     log,
	})
}
