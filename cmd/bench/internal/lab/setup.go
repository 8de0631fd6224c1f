package lab

import (
	"context"
	"fmt"
	"time"

	"github.com/larder-registry/larder/cmd/bench/internal/load"
	"github.com/larder-registry/larder/cmd/bench/internal/server"
	"github.com/larder-registry/larder/cmd/bench/internal/upstream"
)

// A Setup is what a case prepares with. It adds images to the upstream, and scales sizes and times down for a quick run.
// It is not safe for concurrent use.
type Setup struct {
	Rounds int // how many images a case needs that uses a new one in each round

	upstream *upstream.Upstream
	scale    int64  // divides sizes, times and numbers
	seeds    uint64 // given to images so far
	bases    uint64 // given to bases so far
}

// Image adds an image that has no layer in common with any other.
func (s *Setup) Image(ctx context.Context, layers ...int64) (*upstream.Image, error) {
	return s.addImage(ctx, nil, layers)
}

// Images adds an image for each round.
func (s *Setup) Images(ctx context.Context, layers ...int64) ([]*upstream.Image, error) {
	images := make([]*upstream.Image, s.Rounds)
	for i := range images {
		var err error
		if images[i], err = s.Image(ctx, layers...); err != nil {
			return nil, err
		}
	}
	return images, nil
}

// UnscaledImages is Images in the sizes of a real run.
func (s *Setup) UnscaledImages(ctx context.Context, layers ...int64) ([]*upstream.Image, error) {
	unscaled := *s
	unscaled.scale = 1
	defer func() { s.seeds = unscaled.seeds }()
	return unscaled.Images(ctx, layers...)
}

// Family adds n images that share the layers of base.
func (s *Setup) Family(ctx context.Context, n int, base, layers []int64) ([]*upstream.Image, error) {
	s.bases++
	images := make([]*upstream.Image, n)
	for i := range images {
		var err error
		if images[i], err = s.addImage(ctx, base, layers); err != nil {
			return nil, err
		}
	}
	return images, nil
}

func (s *Setup) addImage(ctx context.Context, base, layers []int64) (*upstream.Image, error) {
	s.seeds++
	spec := upstream.ImageSpec{Repository: fmt.Sprintf("bench/image-%d", s.seeds), Seed: s.seeds, BaseSeed: 1<<31 + s.bases}
	for _, size := range base {
		spec.Base = append(spec.Base, s.scaleSize(size))
	}
	for _, size := range layers {
		spec.Layers = append(spec.Layers, s.scaleSize(size))
	}
	return s.upstream.AddImage(ctx, spec)
}

// unscaled is the size up to which layers are not scaled, in bytes.
const unscaled = 1 << 20

func (s *Setup) scaleSize(n int64) int64 {
	if n <= unscaled {
		return n
	}
	return max(n/s.scale, unscaled)
}

// ScaleTime scales how long something lasts.
func (s *Setup) ScaleTime(d time.Duration) time.Duration { return d / time.Duration(s.scale) }

// ScaleCount scales how often something is done.
func (s *Setup) ScaleCount(n int) int { return n / int(s.scale) }

// Warm has every server store an image, and verifies each byte that they serve of it.
func (s *Setup) Warm(ctx context.Context, servers []*server.Server, img *upstream.Image) error {
	for _, srv := range servers {
		if err := srv.Seed(ctx, s.upstream, img); err != nil {
			return err
		}
		if _, err := load.Pull(ctx, srv.Target(), img, true); err != nil {
			return err
		}
		if err := srv.AwaitIdle(ctx); err != nil {
			return err
		}
	}
	return nil
}
