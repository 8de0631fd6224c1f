package main

import "net/http"

// pinCommand is "larder pin".
type pinCommand struct {
	folder
	AllPlatforms bool `help:"Pin all platforms of an index, and fetch those that are not cached. Without a daemon they are fetched when one runs."`
	images
}

// Help is what kong shows below the usage.
func (*pinCommand) Help() string {
	return "A tag stays pinned when it moves to another image.\n\nExamples:\n\n" +
		"    larder pin busybox:1.36\n" +
		"    larder pin --all-platforms registry.example.com/team/app:v1 '*/base/*:stable'"
}

// Run pins images.
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

// Help is what kong shows below the usage.
func (*unpinCommand) Help() string {
	return "Pins by cache.pin in the configuration stay.\n\nExample:\n\n" +
		"    larder unpin '*/team/*'"
}

// Run unpins images.
func (c *unpinCommand) Run(p *invocation) error {
	return c.with(p, func(client *client) error {
		return c.run(p, client.pinned(p), func(image string) (done, error) {
			err := client.do(p.ctx, http.MethodDelete, "pins", imageQuery(image), nil)
			return done{text: "unpinned " + image}, err
		})
	})
}
