package cases

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/larder-registry/larder/cmd/bench/internal/lab"
	"github.com/larder-registry/larder/cmd/bench/internal/load"
	"github.com/larder-registry/larder/cmd/bench/internal/report"
	"github.com/larder-registry/larder/cmd/bench/internal/server"
	"github.com/larder-registry/larder/cmd/bench/internal/upstream"
)

const (
	besideClients = 4
	besideLasts   = 8 * time.Second
	besidePause   = 5 * time.Millisecond // after each pull of a client, so that pulls alone do not fill the machine
)

// besideFill is warm pulls of a small image while the server fetches a huge layer.
func besideFill(size int64) *lab.Case {
	return &lab.Case{
		Case: report.Case{
			Name:     "beside-fill",
			About:    "4 clients pull a warm image of 7 MB again and again; alone, and while a layer of 10 GB comes in at 400 Mb/s a connection",
			Headline: []report.Metric{report.P99, report.P99Alone},
		},
		Only:      []string{report.Larder, "nginx"},
		Link:      near400,
		StaysBusy: true,
		Prepare: func(ctx context.Context, setup *lab.Setup, servers []*server.Server) (lab.Turn, error) {
			small, err := warmSmallImage(ctx, setup, servers)
			if err != nil {
				return nil, err
			}
			huge, err := setup.Image(ctx, size)
			if err != nil {
				return nil, err
			}
			lasts := setup.ScaleTime(besideLasts)
			return func(ctx context.Context, s *server.Server, _ int) (*lab.Outcome, error) {
				return beside(ctx, s.Target(), small, lasts, func(ctx context.Context) error {
					return readAgain(ctx, s.Target(), huge)
				})
			}, nil
		},
	}
}

// warmSmallImage returns a small image that every server stores.
func warmSmallImage(ctx context.Context, setup *lab.Setup, servers []*server.Server) (*upstream.Image, error) {
	img, err := setup.Image(ctx, smaller(large, 64)...)
	if err != nil {
		return nil, err
	}
	return img, setup.Warm(ctx, servers, img)
}

// readAgain reads the first layer of an image again and again until ctx ends.
func readAgain(ctx context.Context, t load.Target, img *upstream.Image) error {
	if err := getManifest(ctx, t, img); err != nil {
		return err
	}
	c := load.NewClient(ctx)
	defer c.Close()
	for {
		resp, err := c.Do(t, load.Request{Path: img.BlobPath(img.Layer(0).Digest)})
		if err == nil {
			_, err = resp.Discard()
		}
		if err != nil {
			return err
		}
	}
}

// besideUpkeep is warm pulls of a small image while the server evicts and scrubs.
func besideUpkeep() *lab.Case {
	const others = 24
	return &lab.Case{
		Case: report.Case{
			Name:     "beside-upkeep",
			About:    "the same beside pulls of image after image into a cache of 1 GB that must evict for each, and a scrub",
			Headline: []report.Metric{report.P99, report.P99Alone},
		},
		Only:      []string{report.Larder},
		MaxSize:   1_000_000_000,
		StaysBusy: true,
		Prepare: func(ctx context.Context, setup *lab.Setup, servers []*server.Server) (lab.Turn, error) {
			small, err := warmSmallImage(ctx, setup, servers)
			if err != nil {
				return nil, err
			}
			images := make([]*upstream.Image, others)
			for i := range images {
				if images[i], err = setup.Image(ctx, 64*mib, 16*mib, 4*mib); err != nil {
					return nil, err
				}
			}
			lasts := setup.ScaleTime(besideLasts)
			return func(ctx context.Context, s *server.Server, _ int) (*lab.Outcome, error) {
				return beside(ctx, s.Target(), small, lasts, func(ctx context.Context) error { return upkeep(ctx, s, images) })
			}, nil
		},
	}
}

// upkeep has a server evict and scrub until ctx ends.
func upkeep(ctx context.Context, s *server.Server, images []*upstream.Image) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		for i := 0; ; i++ {
			if _, err := load.Pull(ctx, s.Target(), images[i%len(images)], false); err != nil {
				return err
			}
		}
	})
	group.Go(func() error {
		for {
			if err := s.Scrub(ctx); err != nil {
				return err
			}
		}
	})
	return group.Wait()
}

// beside measures warm pulls alone, and then beside other work, which runs until its context ends.
func beside(ctx context.Context, t load.Target, img *upstream.Image, lasts time.Duration, work func(context.Context) error) (*lab.Outcome, error) {
	pulls := func() ([]time.Duration, error) {
		return load.PullAgain(ctx, t, img, besideClients, lasts, besidePause)
	}
	alone, err := pulls()
	if err != nil {
		return nil, err
	}
	working, cancel := context.WithCancel(ctx)
	defer cancel()
	worked := make(chan error, 1)
	go func() { worked <- work(working) }()
	took, err := pulls()
	ended := len(worked) > 0
	cancel()
	workErr := <-worked
	switch {
	case err != nil:
		return nil, err
	case ended:
		return nil, fmt.Errorf("the work ended before the pulls: %w", workErr)
	}
	return &lab.Outcome{Measures: report.Measures{
		report.P99Alone: report.Percentile(alone, 99),
		report.P99:      report.Percentile(took, 99),
		report.Median:   report.Percentile(took, 50),
	}}, nil
}
