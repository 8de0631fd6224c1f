package cases

import (
	"context"
	"slices"
	"time"

	"github.com/larder-registry/larder/cmd/bench/internal/lab"
	"github.com/larder-registry/larder/cmd/bench/internal/load"
	"github.com/larder-registry/larder/cmd/bench/internal/report"
	"github.com/larder-registry/larder/cmd/bench/internal/server"
	"github.com/larder-registry/larder/cmd/bench/internal/upstream"
)

// Why some servers do not take part in cold cases.
const (
	fetchesNothing = "it fetches nothing"
	doesNotShare   = "it does not share what it fetches"
)

// cold is clients that pull at once an image that no server stores. A single client hashes what it gets, since it is on
// the same node. Many clients drop it, since they stand for other machines.
func cold(name, about string, clients int, link upstream.Link, layers []int64) *lab.Case {
	c := &lab.Case{
		Case: report.Case{
			Name:     name,
			About:    about,
			Headline: []report.Metric{report.Wall, report.CPUPerGB, report.UpstreamBytes, report.UpstreamRequests},
			Skip:     map[string]string{"nginx-files": fetchesNothing},
		},
		Link: link,
		Prepare: func(ctx context.Context, setup *lab.Setup, _ []*server.Server) (lab.Turn, error) {
			images, err := setup.Images(ctx, layers...)
			if err != nil {
				return nil, err
			}
			return func(ctx context.Context, s *server.Server, round int) (*lab.Outcome, error) {
				img := images[round]
				served, took, err := load.PullAll(ctx, s.Target(), img, clients, 1, clients == 1)
				return &lab.Outcome{Served: served, Needed: img.Size(), Measures: report.Measures{report.Wall: took.Seconds()}}, err
			}, nil
		},
	}
	if clients > 1 {
		c.Skip["bare-go"] = doesNotShare
	}
	return c
}

// coldFirstByte reads layers that no server stores, one after the other, of an image whose manifest was pulled.
func coldFirstByte(name, about string) *lab.Case {
	const layers = 12
	return &lab.Case{
		Case: report.Case{
			Name:     name,
			About:    about,
			Headline: []report.Metric{report.FirstByte},
			Skip:     map[string]string{"nginx-files": fetchesNothing},
		},
		Prepare: func(ctx context.Context, setup *lab.Setup, _ []*server.Server) (lab.Turn, error) {
			images, err := setup.Images(ctx, slices.Repeat([]int64{32 * mib}, layers)...)
			if err != nil {
				return nil, err
			}
			return func(ctx context.Context, s *server.Server, round int) (*lab.Outcome, error) {
				took, err := firstBytes(ctx, s.Target(), images[round])
				return &lab.Outcome{Measures: report.Measures{report.FirstByte: report.Percentile(took, 50)}}, err
			}, nil
		},
	}
}

// firstBytes reads the layers of an image and returns how long each took until its first byte.
func firstBytes(ctx context.Context, t load.Target, img *upstream.Image) ([]time.Duration, error) {
	c := load.NewClient(ctx)
	defer c.Close()
	if _, err := c.Get(t, img.ManifestPath(), img.Manifest(), false); err != nil {
		return nil, err
	}
	var took []time.Duration
	for n := range img.Layers {
		resp, err := c.Do(t, load.Request{Path: img.BlobPath(img.Layer(n).Digest)})
		if err != nil {
			return nil, err
		}
		took = append(took, resp.FirstByte)
		if _, err := resp.Discard(); err != nil {
			return nil, err
		}
	}
	return took, nil
}

// rollout is a node that gets ten images at once that share most of their bytes.
func rollout() *lab.Case {
	const images = 10
	base, own := []int64{96 * mib, 24 * mib, 8 * mib}, []int64{16 * mib, 3 * mib}
	return &lab.Case{
		Case: report.Case{
			Name:     "rollout",
			About:    "10 clients pull an image each, of 20 MB on a base of 134 MB that all share; 400 Mb/s a connection, 5 ms",
			Headline: []report.Metric{report.Wall, report.CPUPerGB, report.UpstreamBytes, report.UpstreamRequests},
			Skip:     map[string]string{"nginx-files": fetchesNothing, "bare-go": doesNotShare},
		},
		Link: near400,
		Prepare: func(ctx context.Context, setup *lab.Setup, _ []*server.Server) (lab.Turn, error) {
			rounds := make([][]*upstream.Image, setup.Rounds)
			for round := range rounds {
				var err error
				if rounds[round], err = setup.Family(ctx, images, base, own); err != nil {
					return nil, err
				}
			}
			return func(ctx context.Context, s *server.Server, round int) (*lab.Outcome, error) {
				served, took, err := load.PullEach(ctx, s.Target(), rounds[round], 1, false)
				return &lab.Outcome{
					Served:   served,
					Needed:   distinctBytes(rounds[round]),
					Measures: report.Measures{report.Wall: took.Seconds()},
				}, err
			}, nil
		},
	}
}

// distinctBytes returns how many bytes images have, counting each blob once.
func distinctBytes(images []*upstream.Image) int64 {
	sizes := make(map[string]int64)
	for _, img := range images {
		for _, blob := range img.Blobs() {
			sizes[blob.Digest.String()] = blob.Size
		}
	}
	var sum int64
	for _, size := range sizes {
		sum += size
	}
	return sum
}
