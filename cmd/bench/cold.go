package main

import (
	"context"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
)

// Ways to an upstream. A near one is in the same region, a far one across an ocean.
var (
	fullSpeed = shape{}
	near400   = shape{50_000_000, 5 * time.Millisecond}
	far400    = shape{50_000_000, 50 * time.Millisecond}
	near80    = shape{10_000_000, 5 * time.Millisecond}
	far80     = shape{10_000_000, 50 * time.Millisecond}
)

// cold is clients that pull an image at once which nobody holds. One client alone hashes what it gets, as it does on
// the same node; many drop it, since they are other machines.
func cold(name, about string, clients int, way shape, layers []int64) *scenario {
	sc := &scenario{
		name: name, about: about, shape: way,
		headline: []metric{wall, cpuPerGB, upstreamBytes, upstreamAsked},
		skip:     map[string]string{"nginx-files": "it fetches nothing"},
	}
	if clients > 1 {
		sc.skip["bare-go"] = "it does not share what it fetches"
	}
	sc.prepare = func(ctx context.Context, l *lab, _ []*server) (turn, error) {
		images, err := l.images(ctx, layers...)
		if err != nil {
			return nil, err
		}
		return func(ctx context.Context, s *server, round int) (*outcome, error) {
			img := images[round]
			served, took, err := pullAll(ctx, s, img, clients, 1, clients == 1)
			out := &outcome{served: served, wanted: img.size(), measures: measures{wall: took.Seconds()}}
			return out, err
		}, nil
	}
	return sc
}

// coldFirstByte is layers that nobody holds, one after the other, of an image whose manifest was pulled.
func coldFirstByte() *scenario {
	const layers = 12
	return &scenario{
		name:     "first-byte",
		about:    "12 cold layers of 32 MiB one after the other, until their first byte, upstream at full speed",
		headline: []metric{firstByte},
		skip:     map[string]string{"nginx-files": "it fetches nothing"},
		prepare: func(ctx context.Context, l *lab, _ []*server) (turn, error) {
			images, err := l.images(ctx, slices.Repeat([]int64{32 * mib}, layers)...)
			if err != nil {
				return nil, err
			}
			return func(ctx context.Context, s *server, round int) (*outcome, error) {
				took, err := firstBytes(ctx, s, images[round])
				return &outcome{measures: measures{firstByte: percentile(took, 50)}}, err
			}, nil
		},
	}
}

func firstBytes(ctx context.Context, s *server, img *image) ([]time.Duration, error) {
	c := newClient(ctx)
	defer c.close()
	a, err := c.ask(s, question{path: img.path("manifests", img.manifest().String())})
	if err != nil {
		return nil, err
	}
	if _, err := a.drain(); err != nil {
		return nil, err
	}
	var took []time.Duration
	for n := range img.Layers {
		a, err := c.ask(s, question{path: img.path("blobs", img.layer(n).Digest.String())})
		if err != nil {
			return nil, err
		}
		took = append(took, a.first)
		if _, err := a.drain(); err != nil {
			return nil, err
		}
	}
	return took, nil
}

// rollout is a node that gets ten images at once which share most of their bytes.
func rollout() *scenario {
	const images = 10
	return &scenario{
		name:     "rollout",
		about:    "10 clients pull an image each, of 20 MB on a base of 134 MB that all share; 400 Mb/s a connection, 5 ms",
		skip:     map[string]string{"nginx-files": "it fetches nothing", "bare-go": "it does not share what it fetches"},
		shape:    near400,
		headline: []metric{wall, cpuPerGB, upstreamBytes, upstreamAsked},
		prepare: func(ctx context.Context, l *lab, _ []*server) (turn, error) {
			rounds := make([][]*image, l.rounds)
			for round := range rounds {
				l.bases++
				for range images {
					img, err := l.imageOn(ctx, []int64{96 * mib, 24 * mib, 8 * mib}, 16*mib, 3*mib)
					if err != nil {
						return nil, err
					}
					rounds[round] = append(rounds[round], img)
				}
			}
			return func(ctx context.Context, s *server, round int) (*outcome, error) {
				return pullEach(ctx, s, rounds[round])
			}, nil
		},
	}
}

// pullEach has a client for each image.
func pullEach(ctx context.Context, s *server, images []*image) (*outcome, error) {
	began := time.Now()
	got := make([]int64, len(images))
	group, ctx := errgroup.WithContext(ctx)
	for i, img := range images {
		group.Go(func() (err error) {
			got[i], err = pull(ctx, s, img, false)
			return err
		})
	}
	err := group.Wait()
	out := &outcome{wanted: distinct(images), measures: measures{wall: time.Since(began).Seconds()}}
	for _, n := range got {
		out.served += n
	}
	return out, err
}

// distinct is how many bytes there are in images, each counted once.
func distinct(images []*image) int64 {
	sizes := make(map[string]int64)
	for _, img := range images {
		for _, blob := range img.added.Blobs {
			sizes[blob.Digest.String()] = blob.Size
		}
	}
	var sum int64
	for _, size := range sizes {
		sum += size
	}
	return sum
}
