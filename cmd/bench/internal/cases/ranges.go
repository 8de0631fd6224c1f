package cases

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/larder-registry/larder/cmd/bench/internal/lab"
	"github.com/larder-registry/larder/cmd/bench/internal/load"
	"github.com/larder-registry/larder/cmd/bench/internal/report"
	"github.com/larder-registry/larder/cmd/bench/internal/server"
	"github.com/larder-registry/larder/cmd/bench/internal/upstream"
)

const (
	rangeReads    = 2000
	rangeLength   = 50 * kib
	rangeParallel = 8
)

// ranges is what a lazy snapshotter does: a container starts on an image that is not on the node, and reads parts of a
// large layer. A lazy snapshotter remembers the URL that a redirect led to, and so do these clients.
func ranges(name, about string, link upstream.Link) *lab.Case {
	return &lab.Case{
		Case: report.Case{
			Name:     name,
			About:    about,
			Headline: []report.Metric{report.Wall, report.Median, report.P99, report.Worst},
			Skip: map[string]string{
				"nginx-files":  fetchesNothing,
				"bare-go":      "it sends the whole layer for each read",
				"distribution": "it sends the whole layer for each read, and fetches it each time until it has it",
			},
		},
		Link: link,
		Prepare: func(ctx context.Context, setup *lab.Setup, _ []*server.Server) (lab.Turn, error) {
			images, err := setup.Images(ctx, gib)
			if err != nil {
				return nil, err
			}
			return func(ctx context.Context, s *server.Server, round int) (*lab.Outcome, error) {
				began := time.Now()
				took, err := readRanges(ctx, s.Target(), images[round], setup.ScaleCount(rangeReads))
				return &lab.Outcome{Measures: report.Measures{
					report.Wall:   time.Since(began).Seconds(),
					report.Median: report.Percentile(took, 50),
					report.P99:    report.Percentile(took, 99),
					report.Worst:  report.Percentile(took, 100),
				}}, err
			}, nil
		},
	}
}

// readRanges reads ranges of an image's first layer and returns how long each read took.
func readRanges(ctx context.Context, t load.Target, img *upstream.Image, reads int) ([]time.Duration, error) {
	if err := getManifest(ctx, t, img); err != nil {
		return nil, err
	}
	path := img.BlobPath(img.Layer(0).Digest)
	var mu sync.Mutex // guards took
	var took []time.Duration
	group, ctx := errgroup.WithContext(ctx)
	for i := range rangeParallel {
		group.Go(func() error {
			c := load.NewClient(ctx)
			defer c.Close()
			random := rand.New(rand.NewPCG(1, uint64(i))) //nolint:gosec // every server gets the same offsets
			for range reads / rangeParallel {
				r := load.Request{Path: path, From: random.Int64N(img.Layers[0] - rangeLength), Len: rangeLength}
				began := time.Now()
				if err := readRange(c, t, r); err != nil {
					return err
				}
				mu.Lock()
				took = append(took, time.Since(began))
				mu.Unlock()
			}
			return nil
		})
	}
	return took, group.Wait()
}

func readRange(c *load.Client, t load.Target, r load.Request) error {
	resp, err := c.DoRedirected(t, r)
	if err != nil {
		return err
	}
	n, err := resp.Discard()
	if err == nil && n != r.Len {
		err = fmt.Errorf("%s: %s: %d bytes for a range of %d", t.Name, r.Path, n, r.Len)
	}
	return err
}

// getManifest reads an image's manifest with a client of its own.
func getManifest(ctx context.Context, t load.Target, img *upstream.Image) error {
	c := load.NewClient(ctx)
	defer c.Close()
	_, err := c.Get(t, img.ManifestPath(), img.Manifest(), false)
	return err
}
