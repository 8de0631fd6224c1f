package main

import (
	"fmt"
	"net/http"
	"text/tabwriter"

	"github.com/dustin/go-humanize"

	"github.com/larder-registry/larder/cache"
)

// statsCommand is "larder stats".
type statsCommand struct {
	folder
	JSON bool `name:"json" help:"Print a JSON object; sizes are in bytes."`
}

// Run sums the cache up.
func (c *statsCommand) Run(p *invocation) error {
	return c.with(p, func(client *client) error {
		var st cache.Stats
		if err := client.do(p.ctx, http.MethodGet, "stats", nil, &st); err != nil {
			return err
		}
		if c.JSON {
			return printJSON(p.stdout, st)
		}
		bound := "no bound"
		if st.MaxSize > 0 {
			bound = fmt.Sprintf("of %s (%.0f%%)", size(st.MaxSize), 100*float64(st.Bytes)/float64(st.MaxSize))
		}
		table := tabwriter.NewWriter(p.stdout, 0, 0, 2, ' ', 0)
		fmt.Fprintf(table, "size\t%s, %s\n", size(st.Bytes), bound)
		fmt.Fprintf(table, "free on disk\t%s\n", size(st.Free))
		fmt.Fprintf(table, "images\t%d, %d pinned\n", st.Images, st.Pinned)
		fmt.Fprintf(table, "blobs\t%d\n", st.Blobs)
		fmt.Fprintf(table, "on their way\t%d, %d being fetched\n", st.Partials, st.Fills)
		return table.Flush()
	})
}

func size(n int64) string { return humanize.IBytes(uint64(max(n, 0))) }
