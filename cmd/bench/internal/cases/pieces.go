package cases

import (
	"context"
	"time"

	"github.com/larder-registry/larder/cmd/bench/internal/lab"
	"github.com/larder-registry/larder/cmd/bench/internal/load"
	"github.com/larder-registry/larder/cmd/bench/internal/report"
	"github.com/larder-registry/larder/cmd/bench/internal/server"
	"github.com/larder-registry/larder/cmd/bench/internal/upstream"
)

// wholeForEach is why some servers do not read layers in pieces.
const wholeForEach = "it sends the whole layer for each piece"

// pieces is clients that read cold layers in pieces of 8 MiB: each on links near and far, and far over TLS, which is what
// real registries speak.
func pieces() []*lab.Case {
	readers := []int64{256 * mib}
	return []*lab.Case{
		inPieces("readers-far", "10 readers of 8 MiB ranges on one cold layer of 268 MB, 400 Mb/s a connection, 60 ms", load.Readers, readers, ocean400),
		overTLS(inPieces("readers-far-tls", "the same over TLS", load.Readers, readers, ocean400)),
		overTLS(inPieces("readers-tls", "the same over TLS, upstream at full speed", load.Readers, readers, fullSpeed)),
		inPieces("soci-far", "SOCI's parallel pull of a cold image of 446 MB, 8 MiB × 3, 400 Mb/s a connection, 60 ms", load.SOCI, large, ocean400),
		overTLS(inPieces("soci-far-tls", "the same over TLS", load.SOCI, large, ocean400)),
		overTLS(inPieces("soci-tls", "the same over TLS, upstream at full speed", load.SOCI, large, fullSpeed)),
		inPieces("chunks-far", "containerd's chunks of 8 MiB × 8 of a cold image of 446 MB, 400 Mb/s a connection, 60 ms", load.Containerd, large, ocean400),
		overTLS(inPieces("chunks-far-tls", "the same over TLS", load.Containerd, large, ocean400)),
		overTLS(inPieces("chunks-tls", "the same over TLS, upstream at full speed", load.Containerd, large, fullSpeed)),
		withoutSpace("bypass-far", "ranges of 8 MiB × 10 of a layer of 302 MB that does not fit into the cache, 400 Mb/s a connection, 60 ms", load.Readers, ocean400),
		withoutSpace("bypass-chunks-far", "containerd's chunks of 8 MiB × 8 of this layer, the same link", load.Containerd, ocean400),
		overTLS(withoutSpace("bypass-tls", "ranges of 8 MiB × 10 of this layer over TLS, upstream at full speed", load.Readers, fullSpeed)),
	}
}

// inPieces is one client that reads a cold image in pieces.
func inPieces(name, about string, p load.Pieces, layers []int64, link upstream.Link) *lab.Case {
	return &lab.Case{
		Case: report.Case{
			Name:     name,
			About:    about,
			Headline: []report.Metric{report.Wall, report.CPUPerGB, report.UpstreamBytes, report.UpstreamRequests},
			Skip:     map[string]string{"nginx-files": fetchesNothing, "bare-go": wholeForEach, "distribution": wholeForEach},
		},
		Link: link,
		Prepare: func(ctx context.Context, setup *lab.Setup, _ []*server.Server) (lab.Turn, error) {
			images, err := setup.Images(ctx, layers...)
			return pullPieces(images, p), err
		},
	}
}

// pullPieces has one client read an image of its own in each round.
func pullPieces(images []*upstream.Image, p load.Pieces) lab.Turn {
	return func(ctx context.Context, s *server.Server, round int) (*lab.Outcome, error) {
		img := images[round]
		began := time.Now()
		served, err := load.PullPieces(ctx, s.Target(), img, p)
		return &lab.Outcome{Served: served, Needed: img.Size(), Measures: report.Measures{report.Wall: time.Since(began).Seconds()}}, err
	}
}

// overTLS has the upstream speak TLS.
func overTLS(c *lab.Case) *lab.Case {
	c.TLS = true
	c.Headline = append(c.Headline, report.Handshakes, report.FullHandshakes)
	return c
}

// tinyCache is the smallest cache that Larder accepts, and overflowing a layer that does not fit into it. A quick run has
// the same.
const (
	tinyCache   = 256 * mib
	overflowing = 288 * mib
)

// withoutSpace is inPieces of a layer for which the servers have no space.
func withoutSpace(name, about string, p load.Pieces, link upstream.Link) *lab.Case {
	c := inPieces(name, about, p, nil, link)
	c.MaxSize = tinyCache
	c.Skip["nginx"] = "its bound is kept afterwards, so that every layer fits"
	c.Prepare = func(ctx context.Context, setup *lab.Setup, _ []*server.Server) (lab.Turn, error) {
		images, err := setup.UnscaledImages(ctx, overflowing)
		return pullPieces(images, p), err
	}
	return c
}
