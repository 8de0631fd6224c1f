package main

import (
	"context"
	"time"
)

// large is the image of most cases: 446 MB in seven blobs, the config among them.
var large = []int64{256 * mib, 128 * mib, 32 * mib, 8 * mib, mib, 4 * kib}

// parts returns a smaller image of the same shape.
func parts(layers []int64, by int64) []int64 {
	smaller := make([]int64, len(layers))
	for i, size := range layers {
		smaller[i] = max(size/by, min(size, 4*kib))
	}
	return smaller
}

// warmLarge is pulls of a large image that everyone holds.
func warmLarge() *scenario {
	const clients, times = 4, 3
	return &scenario{
		name:     "warm",
		about:    "4 clients pull a warm image of 446 MB three times each",
		headline: []metric{wall, cpuPerGB},
		prepare: func(ctx context.Context, l *lab, servers []*server) (turn, error) {
			img, err := l.image(ctx, large...)
			if err != nil {
				return nil, err
			}
			if err := l.warm(ctx, servers, img); err != nil {
				return nil, err
			}
			return func(ctx context.Context, s *server, _ int) (*outcome, error) {
				served, took, err := pullAll(ctx, s, img, clients, times, false)
				return &outcome{served: served, measures: measures{wall: took.Seconds()}}, err
			}, nil
		},
	}
}

const (
	smallConnections = 16
	smallLasts       = 3 * time.Second
)

// warmSmall is small requests for one thing that everyone holds.
func warmSmall(name, about string, ask func(*image) question, skip map[string]string) *scenario {
	return &scenario{
		name:     name,
		about:    about,
		skip:     skip,
		headline: []metric{rate, cpuPerRequest, allocs, syscalls},
		prepare: func(ctx context.Context, l *lab, servers []*server) (turn, error) {
			img, err := l.image(ctx, parts(large, 64)...)
			if err != nil {
				return nil, err
			}
			if err := l.warm(ctx, servers, img); err != nil {
				return nil, err
			}
			q := ask(img)
			return func(ctx context.Context, s *server, round int) (*outcome, error) {
				out, err := l.flood(ctx, s, q)
				if err != nil || round > 0 {
					return out, err
				}
				return out, l.dissect(ctx, s, q, out.measures)
			}, nil
		},
	}
}
