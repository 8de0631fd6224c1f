package cases

import (
	"time"

	"github.com/larder-registry/larder/cmd/bench/internal/upstream"
)

// Sizes in bytes.
const (
	kib = 1 << 10
	mib = 1 << 20
	gib = 1 << 30
)

// large is the image of most cases: 446 MB in seven blobs with the config.
var large = []int64{256 * mib, 128 * mib, 32 * mib, 8 * mib, mib, 4 * kib}

// smaller divides the sizes of layers, but makes none smaller than 4 KiB.
func smaller(layers []int64, by int64) []int64 {
	sizes := make([]int64, len(layers))
	for i, size := range layers {
		sizes[i] = max(size/by, min(size, 4*kib))
	}
	return sizes
}

// Links to an upstream. A near upstream is in the same region, a far one across an ocean.
var (
	fullSpeed = upstream.Link{}
	near400   = upstream.Link{BytesPerSecond: 50_000_000, Latency: 5 * time.Millisecond}
	far400    = upstream.Link{BytesPerSecond: 50_000_000, Latency: 50 * time.Millisecond}
	ocean400  = upstream.Link{BytesPerSecond: 50_000_000, Latency: 60 * time.Millisecond}
	near80    = upstream.Link{BytesPerSecond: 10_000_000, Latency: 5 * time.Millisecond}
	far80     = upstream.Link{BytesPerSecond: 10_000_000, Latency: 50 * time.Millisecond}
)
