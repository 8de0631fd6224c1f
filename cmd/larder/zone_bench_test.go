package main

import (
	"cmp"
	"fmt"
	"os"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
)

// BenchmarkZone has a client of each node of a zone pull a cold image at the same time, and reports how long that takes
// and how many times the image came from the upstream, beside one node alone. ZONE_MIB is the image's size in MiB, and
// ZONE_MBIT what the upstream sends on a connection, in Mb/s: all nodes share this machine's processors, which a slower
// upstream leaves room on.
func BenchmarkZone(b *testing.B) {
	setting := func(name, otherwise string) int64 {
		n, err := strconv.ParseInt(cmp.Or(os.Getenv(name), otherwise), 10, 64)
		if err != nil {
			b.Fatalf("%s: %v", name, err)
		}
		return n
	}
	layer, speed := setting("ZONE_MIB", "64")<<20/8, setting("ZONE_MBIT", "400")*1_000_000/8
	var alone time.Duration
	for _, nodes := range []int{1, 8} {
		b.Run(fmt.Sprintf("nodes=%d", nodes), func(b *testing.B) {
			f := newFleet(b)
			for range nodes {
				f.add(b, "a", "")
			}
			f.startAll(b)
			f.ecr.limit(b, speed)
			var took time.Duration
			var bytes, wanted int64
			for b.Loop() {
				image := f.image(b, layer, layer, layer, layer, layer, layer, layer, layer)
				began := time.Now()
				var pulling errgroup.Group
				for _, s := range f.nodes {
					p := s.newPuller(b)
					p.atOnce = layersAtOnce
					pulling.Go(func() error {
						defer p.client.CloseIdleConnections()
						_, err := p.pull(b.Context(), image.repository, image.tag)
						return err
					})
				}
				if err := pulling.Wait(); err != nil {
					b.Fatal(err)
				}
				took += time.Since(began)
				sent, _ := f.sent(b, image, f.ecr.stats(b))
				bytes, wanted = bytes+sent, wanted+image.bytes
			}
			wall := took / time.Duration(b.N)
			b.ReportMetric(wall.Seconds(), "s/rollout")
			b.ReportMetric(float64(bytes)/float64(wanted), "upstream-x")
			if nodes == 1 {
				alone = wall
			} else if alone > 0 {
				b.ReportMetric(float64(wall)/float64(alone), "wall-x")
			}
		})
	}
}
