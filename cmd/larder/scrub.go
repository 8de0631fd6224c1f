package main

import (
	"errors"
	"fmt"

	"github.com/larder-registry/larder/cmd/larder/format"
)

// scrubCommand is "larder scrub".
type scrubCommand struct {
	folder
	JSON bool `name:"json" help:"Print what was found as a JSON object."`
}

// Help is what kong shows below the usage.
func (c *scrubCommand) Help() string {
	return "Reads everything in the cache and compares it with its digest, at full speed. Damaged blobs are removed. " +
		"They are fetched again when a client asks for them, or at once if they are pinned and a daemon runs. An interrupt ends the scrub.\n\n" +
		"The exit status is 1 if something was damaged."
}

// Run scrubs.
func (c *scrubCommand) Run(p *invocation) error {
	return c.with(p, func(client *client) error {
		shown := newProgress(p.stderr)
		result, err := client.scrub(p, shown.at)
		shown.end()
		if err != nil {
			return err
		}
		if c.JSON {
			err = printJSON(p.stdout, result)
		} else {
			_, err = fmt.Fprintf(p.stdout, "%d blobs are correct, %d were damaged; %s read\n", result.Blobs, result.Mismatches, format.Size(result.Bytes))
		}
		if err == nil && result.Mismatches > 0 {
			err = errors.New("damaged blobs were removed; the log names them")
		}
		return err
	})
}
