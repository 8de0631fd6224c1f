package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

const (
	rangeReads  = 2000
	rangeLength = 50 * kib
	rangeAtOnce = 8
)

// ranges is what a lazy snapshotter does: a container starts on an image that is not here, and reads here and there in
// a large layer. It keeps the URL that a redirect led to, and so does the client that reads straight from the upstream.
func ranges() *scenario {
	return &scenario{
		name:  "ranges",
		about: "2,000 random reads of 50 KiB, 8 at a time, of a cold layer of 1 GiB; 400 Mb/s a connection, 5 ms",
		skip: map[string]string{
			"nginx-files":  "it fetches nothing",
			"bare-go":      "it sends the whole layer for each read",
			"distribution": "it sends the whole layer for each read, and fetches it each time until it has it",
		},
		shape:    near400,
		headline: []metric{wall, median, p99, worst},
		prepare: func(ctx context.Context, l *lab, _ []*server) (turn, error) {
			images, err := l.images(ctx, gib)
			if err != nil {
				return nil, err
			}
			return func(ctx context.Context, s *server, round int) (*outcome, error) {
				img := images[round]
				began := time.Now()
				took, err := readRanges(ctx, s, img, rangeReads/int(l.scale))
				return &outcome{measures: measures{
					wall:   time.Since(began).Seconds(),
					median: percentile(took, 50),
					p99:    percentile(took, 99),
					worst:  percentile(took, 100),
				}}, err
			}, nil
		},
	}
}

func readRanges(ctx context.Context, s *server, img *image, reads int) ([]time.Duration, error) {
	path := img.path("blobs", img.layer(0).Digest.String())
	if err := readManifest(ctx, s, img); err != nil {
		return nil, err
	}
	var mu sync.Mutex // guards what follows
	var took []time.Duration
	group, ctx := errgroup.WithContext(ctx)
	for i := range rangeAtOnce {
		group.Go(func() error {
			c := newClient(ctx)
			defer c.close()
			random := rand.New(rand.NewPCG(1, uint64(i))) //nolint:gosec // the same offsets for everyone
			for range reads / rangeAtOnce {
				q := question{path: path, from: random.Int64N(img.Layers[0] - rangeLength), n: rangeLength}
				began := time.Now()
				if err := c.readRange(s, q); err != nil {
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

func (c *client) readRange(s *server, q question) error {
	a, err := c.askWhereItLed(s, q)
	if err != nil {
		return err
	}
	n, err := a.drain()
	if err == nil && n != q.n {
		err = fmt.Errorf("%s: %s: %d bytes for a range of %d", s.name, q.path, n, q.n)
	}
	return err
}

func readManifest(ctx context.Context, s *server, img *image) error {
	c := newClient(ctx)
	defer c.close()
	a, err := c.ask(s, question{path: img.path("manifests", img.manifest().String())})
	if err != nil {
		return err
	}
	_, err = a.drain()
	return err
}
