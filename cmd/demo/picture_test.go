package main

import (
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

// flowsOf returns those of a roll-out to some nodes, of which each has got the image from the upstream and all others.
func flowsOf(n int) flows {
	f := flows{size: int64(n) * 123_456_789_012}
	for i := range n {
		node := nodeFlow{upstream: 123_456_789_012, peers: make([]int64, n)}
		for j := range n {
			if j != i {
				node.peers[j] = 123_456_789_012
			}
		}
		f.nodes = append(f.nodes, node)
	}
	return f
}

func TestPictureShowsEachEdge(t *testing.T) {
	f := flows{size: 60_000_000, nodes: []nodeFlow{
		{upstream: 40_000_000, peers: []int64{0, 20_000_000, 0}},
		{upstream: 20_000_000, peers: []int64{10_000_000, 0, 0}},
		{peers: []int64{12_500_000, 2_500, 0}},
	}}
	wide := []string{
		"                  upstream",
		"             ┌────────┼────────┐",
		"           40 MB    20 MB      –",
		"          node 1   node 2   node 3",
		"          ███████  ███░░░░  █░░░░░░",
		"",
		"node 1 →     ·      10 MB    13 MB",
		"node 2 →   20 MB      ·     2.5 kB",
		"node 3 →     –        –        ·",
	}
	if diff := cmp.Diff(wide, f.picture(80)); diff != "" {
		t.Errorf("wide (-want +got):\n%s", diff)
	}
	f.nodes = append(f.nodes, nodeFlow{peers: []int64{1_000_000, 2_000_000, 3_000_000}})
	narrow := []string{
		"node 1   ███████████████████████████████",
		"  40 MB from upstream, 20 MB from node 2",
		"node 2   ███████████████░░░░░░░░░░░░░░░░",
		"  20 MB from upstream, 10 MB from node 1",
		"node 3   ██████░░░░░░░░░░░░░░░░░░░░░░░░░",
		"  13 MB from node 1, 2.5 kB from node 2",
		"node 4   ███░░░░░░░░░░░░░░░░░░░░░░░░░░░░",
		"  1.0 MB from node 1,",
		"  2.0 MB from node 2, 3.0 MB from node 3",
	}
	if diff := cmp.Diff(narrow, f.picture(40)); diff != "" {
		t.Errorf("narrow (-want +got):\n%s", diff)
	}
}

func TestPictureFitsEachWidth(t *testing.T) {
	for n := 2; n <= maxNodes; n++ {
		for width := 1; width <= 200; width++ {
			lines := flowsOf(n).picture(width)
			for _, line := range lines {
				if got := utf8.RuneCountInString(line); got > max(width, minWidth) {
					t.Fatalf("%d nodes: at a width of %d a line has %d characters: %s", n, width, got, line)
				}
			}
			text := strings.Join(lines, "\n")
			if edges := strings.Count(text, "124 GB") + strings.Count(text, "123 GB"); edges != n*n {
				t.Fatalf("%d nodes: at a width of %d there are %d edges:\n%s", n, width, edges, text)
			}
			if !strings.Contains(text, fmt.Sprintf("node %d", n)) || !strings.Contains(text, "upstream") {
				t.Fatalf("%d nodes: at a width of %d:\n%s", n, width, text)
			}
		}
	}
}
