package load

import (
	"context"
	"fmt"
	"sync"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/larder-registry/larder/cmd/bench/internal/upstream"
)

// Pieces is how a client reads the layers of an image in pieces.
type Pieces struct {
	Len    int64 // of a piece, in bytes
	Layers int   // how many layers it reads at once
	Each   int   // how many pieces of a layer it reads at once
	// Open says that it asks for everything behind the beginning of a piece, and hangs up at its end, as containerd
	// does. Others ask for the piece.
	Open bool
}

// The clients that read in pieces. Each has its own default sizes; the bench gives all of them pieces of 8 MiB.
var (
	// Containerd is containerd 2.1 and later with concurrent_layer_fetch_buffer and max_concurrent_downloads.
	Containerd = Pieces{Len: 8 << 20, Layers: parallel, Each: 8, Open: true}
	// SOCI is SOCI's parallel pull.
	SOCI = Pieces{Len: 8 << 20, Layers: parallel, Each: 3}
	// Readers is ten readers of one layer.
	Readers = Pieces{Len: 8 << 20, Layers: 1, Each: 10}
)

// piece is a part of a blob.
type piece struct {
	blob     ocispec.Descriptor
	off, len int64
}

// PullPieces pulls an image in pieces and returns how many bytes it got. A config is read whole.
func PullPieces(ctx context.Context, t Target, img *upstream.Image, p Pieces) (bytes int64, err error) {
	c := NewClient(ctx)
	defer c.Close()
	if bytes, err = c.Get(t, img.ManifestPath(), img.Manifest(), false); err != nil {
		return 0, err
	}
	blobs := img.Blobs()
	n, err := c.Get(t, img.BlobPath(blobs[0].Digest), blobs[0], false)
	if err != nil {
		return 0, err
	}
	bytes += n
	var mu sync.Mutex // guards bytes
	layers, ctx := errgroup.WithContext(ctx)
	layers.SetLimit(p.Layers)
	for _, layer := range blobs[1:] {
		layers.Go(func() error {
			n, err := pullLayer(ctx, t, img, layer, p)
			mu.Lock()
			bytes += n
			mu.Unlock()
			return err
		})
	}
	err = layers.Wait()
	return bytes, err
}

// pullLayer reads one layer in pieces. Each reader keeps its connection between them, if the target does.
func pullLayer(ctx context.Context, t Target, img *upstream.Image, layer ocispec.Descriptor, p Pieces) (int64, error) {
	pieces := make(chan piece, layer.Size/p.Len+1)
	for off := int64(0); off < layer.Size; off += p.Len {
		pieces <- piece{layer, off, min(p.Len, layer.Size-off)}
	}
	close(pieces)
	readers, ctx := errgroup.WithContext(ctx)
	for range min(p.Each, cap(pieces)) {
		readers.Go(func() error {
			c := NewClient(ctx)
			defer c.Close()
			for part := range pieces {
				if err := readPiece(c, t, img.BlobPath(layer.Digest), part, p.Open); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return layer.Size, readers.Wait()
}

func readPiece(c *Client, t Target, path string, part piece, open bool) error {
	do := c.DoRedirected
	if open { // containerd follows a redirect anew for each piece
		do = c.Do
	}
	resp, err := do(t, Request{Path: path, From: part.off, Len: part.len, Open: open})
	if err != nil {
		return err
	}
	n, err := resp.DiscardSome(part.len)
	if err == nil && n != part.len {
		err = fmt.Errorf("%s: %s: %d bytes of a piece of %d", t.Name, path, n, part.len)
	}
	return err
}
