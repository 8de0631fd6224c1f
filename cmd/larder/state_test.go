package main

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/cache"
	"github.com/larder-registry/larder/proxy"
	"github.com/larder-registry/larder/proxy/admin"
	"github.com/larder-registry/larder/upstream"
)

func TestStateShowsFillsAndUpstreams(t *testing.T) {
	ago := func(d time.Duration) time.Time { return time.Now().Add(-d) }
	in := func(d time.Duration) time.Time { return ago(-d - 10*time.Second) }
	layer := digest.FromString("layer")
	st := admin.Activity{
		FillsRunning: []proxy.Fill{
			{FillInfo: cache.FillInfo{Digest: layer, Size: 4 << 20, Have: 1 << 20}, Waiting: 2, Repositories: []string{"r.example/a", "r.example/b"}},
			{FillInfo: cache.FillInfo{Digest: layer}},
		},
		Upstreams: []upstream.Status{
			{Host: "new.example"},
			{Host: "aws.example", LastAnswer: ago(time.Minute), PullsNotRecorded: "arn:aws:iam::123456789012:role/nodes"},
			{Host: "well.example", LastAnswer: ago(time.Minute), LastError: "it broke", LastErrorAt: ago(2 * time.Hour),
				TokenObtained: ago(time.Hour), TokenExpires: in(11 * time.Hour)},
			{Host: "ill.example", LastAnswer: ago(time.Hour), LastError: "it is broken", LastErrorAt: ago(time.Minute), Throttled: true,
				TokenExpires: ago(time.Second), TokenError: "denied"},
		},
	}
	short := layer.Encoded()[:12]
	want := []string{
		"FETCHING PROGRESS CLIENTS FOR",
		short + " 1.0 MiB of 4.0 MiB (25%) 2 r.example/a, r.example/b",
		short + " 0 B 0",
		"",
		"UPSTREAM STATE TOKEN LAST ERROR",
		"new.example not asked yet - -",
		"aws.example answers, does not record pulls by arn:aws:iam::123456789012:role/nodes - -",
		"well.example answers from 1 hour ago, good for 11h0m 2 hours ago: it broke",
		"ill.example failing, throttled expired 1 minute ago: it is broken; no newer token: denied",
	}
	var out strings.Builder
	if err := writeTables(&out, stateTables(st)); err != nil {
		t.Fatal(err)
	}
	var got []string
	for line := range strings.Lines(out.String()) { // whatever the columns' widths
		got = append(got, strings.Join(strings.Fields(line), " "))
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if all := stateTables(admin.Activity{}); len(all) > 0 {
		t.Errorf("an empty state has %d tables", len(all))
	}
}
