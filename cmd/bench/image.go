package main

import (
	"fmt"
	"io"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/larder-registry/larder/upstream/ecrtest"
)

// Sizes in bytes.
const (
	kib = 1 << 10
	mib = 1 << 20
	gib = 1 << 30
	gb  = 1e9 // what is served is counted in it
)

const tag = "v1"

// imageSpec says what an image is made of. Images whose seeds differ share none of their own layers.
type imageSpec struct {
	Repository string
	Seed       uint64
	Layers     []int64 // their sizes
	BaseSeed   uint64
	Base       []int64 // sizes of layers that come first; of the same in all images of one BaseSeed
}

// image is one that the upstream has.
type image struct {
	imageSpec
	added ecrtest.Added
}

// add puts the image into the fake.
func (i imageSpec) add(fake *ecrtest.Server) (*ecrtest.Added, error) {
	var img ecrtest.Image
	add := func(seed uint64, sizes []int64) {
		for n, size := range sizes {
			img.Layers = append(img.Layers, ecrtest.Layer{Content: newTiles(seed<<32+uint64(n), size)})
		}
	}
	add(i.BaseSeed, i.Base)
	add(i.Seed, i.Layers)
	return fake.AddImage(i.Repository, tag, img)
}

// size is of its blobs together.
func (i *image) size() int64 { return i.added.Size }

// manifest is the digest that its tag stands for.
func (i *image) manifest() digest.Digest { return i.added.Root.Digest }

// layer returns the blob that is the layer n of Layers.
func (i *image) layer(n int) ocispec.Descriptor { return i.added.Blobs[len(i.Base)+n] }

// path of something in the image's repository.
func (i *image) path(kind, reference string) string {
	return fmt.Sprintf("/v2/%s/%s/%s", i.Repository, kind, reference)
}

// tiles is content that is one random tile over and over, so that the upstream spends little on the making of it.
type tiles struct {
	tile []byte
	size int64
}

// tileSize is a prime, so that no two segments of a blob begin alike.
const tileSize = 1<<20 - 3

func newTiles(seed uint64, size int64) tiles {
	tile := make([]byte, min(size, tileSize))
	// It gives as many bytes as there are, and no error with them.
	_, _ = ecrtest.Random(seed, int64(len(tile))).ReadAt(tile, 0)
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
