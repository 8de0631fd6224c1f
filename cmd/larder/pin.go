package main

import (
	"fmt"
	"net/http"
)

// pinCommand is "larder pin".
type pinCommand struct {
	folder
	images
}

// Run keeps images from eviction.
func (c *pinCommand) Run(p *invocation) error {
	return c.pins(p, c.images, http.MethodPut, "pinned")
}

// unpinCommand is "larder unpin".
type unpinCommand struct {
	folder
	images
}

// Run lets images be evicted again.
func (c *unpinCommand) Run(p *invocation) error {
	return c.pins(p, c.images, http.MethodDelete, "unpinned")
}

func (f folder) pins(p *invocation, images images, method, done string) error {
	return f.with(p, func(client *client) error {
		return images.each(func(image string) error {
			err := client.do(p.ctx, method, "pins", imageQuery(image), nil)
			if err == nil {
				_, err = fmt.Fprintf(p.stdout, "%s %s\n", done, image)
			}
			return err
		})
	})
}
