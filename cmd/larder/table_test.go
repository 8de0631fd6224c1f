package main

import (
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/larder-registry/larder/cache"
	"github.com/larder-registry/larder/proxy"
	"github.com/larder-registry/larder/proxy/admin"
)

func TestTableFitsTheTerminal(t *testing.T) {
	const name = "123456789012.dkr.ecr.us-east-1.amazonaws.com/team/app:v1"
	for _, c := range []struct {
		width     int
		lifecycle string
		want      string
	}{
		{0, "-", name + "  0123456789ab  1.1 MiB  complete            -"},
		{200, "-", name + "  0123456789ab  1.1 MiB  complete            -"},
		{100, "-", "…2.dkr.ecr.us-east-1.amazonaws.com/team/app:v1  0123456789ab  1.1 MiB  complete            -"},
		{80, "-", "….us-east-1.amazonaws.com/team/app:v1  0123456789ab  1.1 MiB  complete"},
		{80, "expired (1)", "…r.us-east-1.amazonaws.com/team/app:v1  1.1 MiB  complete            expired (1)"},
		{60, "expired (1)", "…ast-1.amazonaws.com/team/app:v1  1.1 MiB  complete        …"},
		{10, "expired (1)", "…ast-1.am…"},
	} {
		table := table{spare: "DIGEST"}
		table.add("IMAGE", "DIGEST", "SIZE", "STATE", "LIFECYCLE")
		table.add(name, "0123456789ab", "1.1 MiB", "complete", c.lifecycle)
		table.add("a:b", "ba9876543210", "3 B", "incomplete, pinned", "-")
		var out strings.Builder
		if err := table.write(&out, c.width); err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(out.String(), "\n")
		if lines[1] != c.want {
			t.Errorf("in %d columns: %q, want %q", c.width, lines[1], c.want)
		}
		for _, line := range lines {
			if n := utf8.RuneCountInString(line); c.width > 0 && n > c.width {
				t.Errorf("in %d columns: %q has %d", c.width, line, n)
			}
		}
	}
}

func TestRatesAreBetweenTwoSamples(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	before := sample{At: at, Activity: admin.Activity{
		Activity: cache.Activity{Fetched: 1 << 20, Evictions: map[string]int64{"least recently used": 3}},
		Traffic:  proxy.Traffic{Requests: proxy.Requests{Hit: 10, Miss: 5}, Served: 10 << 20},
	}}
	now := sample{At: at.Add(2 * time.Second), Activity: admin.Activity{
		Activity: cache.Activity{
			Bytes: 7 << 20, Fills: 2, Fetched: 5 << 20, Degraded: "read-only file system",
			Evictions: map[string]int64{"least recently used": 4, "removed by command": 1},
		},
		Traffic: proxy.Traffic{
			Requests: proxy.Requests{Hit: 30, Miss: 6, Stale: 1, Bypass: 4, Failed: 3},
			Served:   50 << 20,
		},
	}}
	const want = "03:04:07  size 7.0 MiB  hits 10.0/s  misses 0.5/s  stale 0.5/s  passed 2.0/s  failed 1.5/s  " +
		"served 20 MiB/s  fetched 2.0 MiB/s  fills 2  evictions 1.0/s  degraded: read-only file system"
	if got := now.line(before); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if got := before.line(now); strings.Contains(got, "-") { // the daemon was restarted
		t.Errorf("a rate is below zero: %s", got)
	}
}

func TestScreenDrawsOverItself(t *testing.T) {
	var out strings.Builder
	s := screen{out: &out, width: 20, height: 5}
	var first, second table
	first.add("size", "1 MiB")
	first.add("degraded", "a reason that is longer than the line")
	second.add("shown")
	second.add("below the last line")
	for range 2 {
		if err := s.draw([]*table{&first, &second}); err != nil {
			t.Fatal(err)
		}
	}
	const drawn = "size      1 MiB\ndegraded  a reason…\n\nshown\n"
	if want := "\x1b[J" + drawn + "\x1b[4A\x1b[J" + drawn; out.String() != want {
		t.Errorf("%q, want %q", out.String(), want)
	}
}
