package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

const (
	besideClients = 4
	besideLasts   = 8 * time.Second
	besidePause   = 5 * time.Millisecond // between two pulls of a client, so that the machine is not full of them
)

// besideFill is warm pulls of a small image while the server fetches something huge, for a client that has left.
func besideFill(size int64) *scenario {
	return &scenario{
		name:     "beside-fill",
		about:    "4 clients pull a warm image of 7 MB again and again; alone, and while a layer of 10 GB comes in at 400 Mb/s a connection",
		only:     []string{"larder", "nginx"},
		leaves:   true,
		headline: []metric{p99, p99Alone},
		shape:    near400,
		prepare: func(ctx context.Context, l *lab, servers []*server) (turn, error) {
			small, err := l.image(ctx, parts(large, 64)...)
			if err != nil {
				return nil, err
			}
			if err := l.warm(ctx, servers, small); err != nil {
				return nil, err
			}
			huge, err := l.image(ctx, size)
			if err != nil {
				return nil, err
			}
			return func(ctx context.Context, s *server, _ int) (*outcome, error) {
				return l.beside(ctx, s, small, func(ctx context.Context) error { return fillFor(ctx, s, huge) })
			}, nil
		},
	}
}

// fillFor reads a layer until the context ends.
func fillFor(ctx context.Context, s *server, img *image) error {
	if err := readManifest(ctx, s, img); err != nil {
		return err
	}
	c := newClient(ctx)
	defer c.close()
	for {
		a, err := c.ask(s, question{path: img.path("blobs", img.layer(0).Digest.String())})
		if err == nil {
			_, err = a.drain()
		}
		if err != nil {
			return err
		}
	}
}

// besideUpkeep is the same while the cache is too small for what is pulled, and is scrubbed.
func besideUpkeep() *scenario {
	return &scenario{
		name:     "beside-upkeep",
		about:    "the same beside pulls of image after image into a cache of 1 GB that must evict for each, and a scrub",
		only:     []string{"larder"},
		leaves:   true,
		headline: []metric{p99, p99Alone},
		limit:    1_000_000_000,
		prepare: func(ctx context.Context, l *lab, servers []*server) (turn, error) {
			small, err := l.image(ctx, parts(large, 64)...)
			if err != nil {
				return nil, err
			}
			if err := l.warm(ctx, servers, small); err != nil {
				return nil, err
			}
			var others []*image
			for range 24 {
				img, err := l.image(ctx, 64*mib, 16*mib, 4*mib)
				if err != nil {
					return nil, err
				}
				others = append(others, img)
			}
			return func(ctx context.Context, s *server, _ int) (*outcome, error) {
				return l.beside(ctx, s, small, func(ctx context.Context) error { return l.upkeep(ctx, s, others) })
			}, nil
		},
	}
}

// upkeep has the server evict and scrub until the context ends.
func (l *lab) upkeep(ctx context.Context, s *server, images []*image) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		for i := 0; ; i++ {
			if _, err := pull(ctx, s, images[i%len(images)], false); err != nil {
				return err
			}
		}
	})
	group.Go(func() error {
		for {
			if err := scrub(ctx, s); err != nil {
				return err
			}
		}
	})
	return group.Wait()
}

// scrub has Larder read back all it holds.
func scrub(ctx context.Context, s *server) error {
	args := s.proc.cmd.Args // larder serve --config FILE
	return command(ctx, nil, s.proc.cmd.Path, append([]string{"scrub"}, args[2:]...)...)
}

// beside measures warm pulls alone, and then beside a load, which runs until its context ends.
func (l *lab) beside(ctx context.Context, s *server, img *image, load func(context.Context) error) (*outcome, error) {
	lasts := l.lasting(besideLasts)
	alone, err := pullFor(ctx, s, img, lasts)
	if err != nil {
		return nil, err
	}
	loading, cancel := context.WithCancel(ctx)
	defer cancel()
	loaded := make(chan error, 1)
	go func() { loaded <- load(loading) }()
	took, err := pullFor(ctx, s, img, lasts)
	running := len(loaded) == 0
	cancel()
	loadErr := <-loaded
	switch {
	case err != nil:
		return nil, err
	case !running:
		return nil, fmt.Errorf("the load ended too early: %w", loadErr)
	}
	return &outcome{measures: measures{
		p99Alone: percentile(alone, 99),
		p99:      percentile(took, 99),
		median:   percentile(took, 50),
	}}, nil
}

// pullFor has clients pull an image again and again, and returns how long each pull took.
func pullFor(ctx context.Context, s *server, img *image, lasts time.Duration) ([]time.Duration, error) {
	var mu sync.Mutex // guards what follows
	var took []time.Duration
	end := time.Now().Add(lasts)
	group, ctx := errgroup.WithContext(ctx)
	for range besideClients {
		group.Go(func() error {
			for time.Now().Before(end) {
				began := time.Now()
				if _, err := pull(ctx, s, img, false); err != nil {
					return err
				}
				mu.Lock()
				took = append(took, time.Since(began))
				mu.Unlock()
				if err := pause(ctx, besidePause); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return took, group.Wait()
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
