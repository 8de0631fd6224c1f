package main

import (
	"fmt"
	"net/http"

	"github.com/larder-registry/larder/cmd/larder/format"
	"github.com/larder-registry/larder/proxy/admin"
)

// rmCommand is "larder rm".
type rmCommand struct {
	folder
	images
}

// Help is what kong shows below the usage.
func (*rmCommand) Help() string {
	return "Pinned images are refused. The next pull fetches a removed image again.\n\nExamples:\n\n" +
		"    larder rm busybox:1.36\n" +
		"    larder rm '*/team/*:pr-*'"
}

// Run removes images.
func (c *rmCommand) Run(p *invocation) error {
	return c.with(p, func(client *client) error {
		return c.run(p, client.cached(p), func(image string) (done, error) {
			var removed admin.Removed
			err := client.do(p.ctx, http.MethodDelete, "images", imageQuery(image), &removed)
			return done{Freed: &removed.Freed, text: fmt.Sprintf("removed %s, %s freed", image, format.Size(removed.Freed))}, err
		})
	})
}
