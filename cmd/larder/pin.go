package main

import "net/http"

// pinCommand is "larder pin".
type pinCommand struct {
	folder
	AllPlatforms bool `help:"Of an index hold all platforms, and fetch those that are not cached; without a daemon, once one runs."`
	images
}

// Run keeps images from eviction.
func (c *pinCommand) Run(p *invocation) error {
	return c.with(p, func(client *client) error {
		return c.run(p, client.cached(p), func(image string) (done, error) {
			query := imageQuery(image)
			if c.AllPlatforms {
				query.Set("platforms", "all")
			}
			err := client.do(p.ctx, http.MethodPut, "pins", query, nil)
			return done{text: "pinned " + image}, err
		})
	})
}

// unpinCommand is "larder unpin".
type unpinCommand struct {
	folder
	images
}

// Run lets images be evicted again.
func (c *unpinCommand) Run(p *invocation) error {
	return c.with(p, func(client *client) error {
		return c.run(p, client.pinned(p), func(image string) (done, error) {
			err := client.do(p.ctx, http.MethodDelete, "pins", imageQuery(image), nil)
			return done{text: "unpinned " + image}, err
		})
	})
}
