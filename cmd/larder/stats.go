package main

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"net/http"
	"slices"
	"time"

	"github.com/larder-registry/larder/cmd/larder/format"
	"github.com/larder-registry/larder/proxy"
	"github.com/larder-registry/larder/proxy/admin"
)

// statsCommand is "larder stats".
type statsCommand struct {
	folder
	JSON     bool          `name:"json" help:"Print a JSON object, with sizes in bytes. With --watch, print one object a line."`
	Watch    bool          `help:"Show the daemon's activity again and again until interrupted."`
	Interval time.Duration `default:"1s" help:"Time between two updates, with --watch."`
}

// minInterval bounds how often --watch asks the daemon.
const minInterval = 100 * time.Millisecond

// Help is what kong shows below the usage.
func (*statsCommand) Help() string {
	return "Examples:\n\n" +
		"    larder stats --watch\n" +
		"    larder stats --json"
}

// Run prints a summary of the cache.
func (c *statsCommand) Run(p *invocation) error {
	if c.Interval < minInterval {
		return usageError{fmt.Errorf("--interval: expected at least %v, got %v", minInterval, c.Interval)}
	}
	return c.with(p, func(client *client) error {
		switch {
		case c.Watch && client.alone:
			return errors.New("there is nothing to watch: no daemon runs")
		case c.Watch:
			return watch(p, client, c.Interval, c.JSON)
		}
		var st admin.Stats
		if err := client.do(p.ctx, http.MethodGet, "stats", nil, &st); err != nil {
			return err
		}
		if c.JSON {
			return printJSON(p.stdout, st)
		}
		return writeTables(p.stdout, statsTables(st))
	})
}

func statsTables(st admin.Stats) []*table {
	t := new(table)
	t.add("size", fill(st.Bytes, st.MaxSize))
	t.add("of it for the index", format.Size(st.Index))
	if st.Unlinked > 0 {
		t.add("removed, still read", format.Size(st.Unlinked))
	}
	t.add("free on disk", format.Size(st.Free))
	images := fmt.Sprintf("%d, %d pinned", st.Images, st.Pinned)
	if st.Gone > 0 {
		images += fmt.Sprintf(", %d gone upstream", st.Gone)
	}
	t.add("images", images)
	t.add("blobs", fmt.Sprint(st.Blobs))
	t.add("unfinished downloads", fmt.Sprintf("%d (%d active)", st.Partials, st.Fills))
	all := []*table{t}
	if st.Activity != nil {
		all = append(all, stateTables(*st.Activity)...)
		all = append(all, activityTable(*st.Activity))
	}
	return all
}

// activityTable is what the daemon has done since it was started.
func activityTable(a admin.Activity) *table {
	t := new(table)
	r := a.Requests
	t.add("since start-up", "")
	t.add("requests", fmt.Sprintf("%d hits, %d misses, %d stale, %d passed through, %d failed", r.Hit, r.Miss, r.Stale, r.Bypass, r.Failed))
	t.add("hit rate", hitRate(r))
	t.add("served", format.Size(a.Served))
	t.add("fetched", format.Size(a.Fetched+a.Passed))
	t.add("saved", format.Size(a.Served-a.Fetched-a.Passed))
	for _, one := range a.Runtimes {
		t.add("last asked by "+one.Name, age(one.Last))
	}
	t.add("evicted", format.Size(a.Evicted))
	for _, reason := range slices.Sorted(maps.Keys(a.Evictions)) {
		t.add("  "+reason, fmt.Sprint(a.Evictions[reason]))
	}
	t.add("checked", fmt.Sprintf("%s, %d blobs damaged", format.Size(a.Scrubbed), a.Damaged))
	if line := linkOf(a.Link); line != "" {
		t.add("link", line)
	}
	if a.Shared != nil {
		t.add("bucket", bucketOf(*a.Shared))
	}
	if a.Policy != nil {
		for _, r := range a.Policy.Rules {
			t.add("policy "+r.Rule, fmt.Sprintf("%s: %d allowed, %d refused, %d undecided, %d images not allowed", r.Mode, r.Allowed, r.Refused, r.Unknown, r.Denied))
		}
	}
	if a.Degraded != "" {
		t.add("degraded", a.Degraded)
	}
	if a.Mirror != nil {
		for _, fault := range a.Mirror.Faults {
			t.add("installed, but not used", fault.What)
		}
	}
	return t
}

// hitRate is the share of requests that were answered from the cache.
func hitRate(r proxy.Requests) string {
	cached := r.Hit + r.Stale
	asked := cached + r.Miss + r.Bypass
	if asked == 0 {
		return nothing
	}
	return fmt.Sprintf("%.0f%%", math.Floor(100*float64(cached)/float64(asked))) // 100% only if all of them were
}

// fill says how full the cache is.
func fill(bytes, most int64) string {
	if most == 0 {
		return format.Size(bytes) + ", no limit"
	}
	return fmt.Sprintf("%s, of %s (%.0f%%)", format.Size(bytes), format.Size(most), 100*float64(bytes)/float64(most))
}
