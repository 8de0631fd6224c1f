package main

import (
	"fmt"
	"net/http"

	"github.com/larder-registry/larder/proxy/admin"
)

// rmCommand is "larder rm".
type rmCommand struct {
	folder
	images
}

// Run removes images.
func (c *rmCommand) Run(p *invocation) error {
	return c.with(p, func(client *client) error {
		return c.run(p, client.cached(p), func(image string) (done, error) {
			var removed admin.Removed
			err := client.do(p.ctx, http.MethodDelete, "images", imageQuery(image), &removed)
			return done{Freed: &removed.Freed, text: fmt.Sprintf("removed %s, %s freed", image, size(removed.Freed))}, err
		})
	})
}
