package main

import "net/http"

// inventoryCommand is "larder inventory".
type inventoryCommand struct {
	folder
	Output string `short:"o" required:"" placeholder:"FILE" help:"Where to write it; - for standard output."`
}

// Help is what kong shows below the usage.
func (c *inventoryCommand) Help() string {
	return "The inventory is what this site has: the digests of all blobs and manifests in the cache, and the images of bundles that were imported. " +
		"Take it to where there is a link: \"larder export --missing-from FILE\" leaves out what the site has already.\n\nExamples:\n\n" +
		"    larder inventory -o /media/disk/site.json\n" +
		"    ssh site larder inventory -o - >site.json"
}

// Run writes the inventory.
func (c *inventoryCommand) Run(p *invocation) error {
	return c.with(p, func(client *client) error {
		resp, err := client.send(p.ctx, http.MethodGet, "inventory", nil)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		return writeOutput(p, c.Output, resp.Body)
	})
}
