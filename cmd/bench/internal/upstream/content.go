package upstream

import (
	"io"

	"github.com/larder-registry/larder/upstream/ecrtest"
)

// tiles is content that repeats one random tile, so that it costs the upstream little CPU time.
type tiles struct {
	tile []byte
	size int64
}

// tileSize is a prime number, so that no two segments of a blob begin with the same bytes.
const tileSize = 1<<20 - 3

func newTiles(seed uint64, size int64) tiles {
	tile := make([]byte, min(size, tileSize))
	_, _ = ecrtest.Random(seed, int64(len(tile))).ReadAt(tile, 0) // it returns no error for a read within its size
	return tiles{tile, size}
}

func (c tiles) Size() int64 { return c.size }

func (c tiles) ReadAt(p []byte, off int64) (int, error) {
	var n int
	for n < len(p) && off < c.size {
		tile := c.tile[off%int64(len(c.tile)):]
		m := copy(p[n:], tile[:min(int64(len(tile)), c.size-off)])
		n += m
		off += int64(m)
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}
