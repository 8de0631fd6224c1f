package main

import (
	"log/slog"
	"os"

	"github.com/larder-registry/larder/proxy"
)

// newPage returns the status page of this daemon.
func newPage(handler *proxy.Proxy, log *slog.Logger) *proxy.Page {
	name, err := os.Hostname()
	if err != nil {
		log.Warn("the status page has no name", "error", err)
	}
	return proxy.NewPage(proxy.PageOptions{Proxy: handler, Name: name, Version: currentVersion(), Log: log})
}
