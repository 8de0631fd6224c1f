package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"golang.org/x/sync/errgroup"
)

// parallelLayers is how many layers of an image containerd fetches at the same time by default.
const parallelLayers = 3

// pulled is what a client received.
type pulled struct {
	digest string // of the manifest that the reference named
	bytes  int64  // of blobs
	blobs  int
	took   time.Duration
}

// A watcher wraps a blob that a client reads, to follow its progress.
type watcher func(digest string, size int64, blob io.ReadCloser) io.ReadCloser

// pull is one client that has nothing yet: it pulls an image for linux/amd64, and checks every digest. It never tries
// again, so that a failure shows.
func pull(ctx context.Context, reference string, watch watcher) (pulled, error) {
	started := time.Now()
	ref, err := name.ParseReference(reference)
	if err != nil {
		return pulled{}, err
	}
	transport := &http.Transport{} // without a proxy, since everything is on this machine
	defer transport.CloseIdleConnections()
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(parallelLayers)
	found, err := remote.Get(ref,
		remote.WithContext(ctx),
		remote.WithTransport(transport),
		remote.WithRetryBackoff(remote.Backoff{Steps: 1}))
	if err != nil {
		return pulled{}, err
	}
	blobs, err := blobsOf(found)
	if err != nil {
		return pulled{}, err
	}
	got := pulled{digest: found.Digest.String(), blobs: len(blobs)}
	var read atomic.Int64
	for _, blob := range blobs {
		group.Go(func() error {
			n, err := readBlob(blob, watch)
			read.Add(n)
			return err
		})
	}
	err = group.Wait()
	got.bytes, got.took = read.Load(), time.Since(started)
	return got, err
}

// blobsOf returns the layers of an image, and its configuration.
func blobsOf(found *remote.Descriptor) ([]v1.Layer, error) {
	image, err := found.Image()
	if err != nil {
		return nil, err
	}
	layers, err := image.Layers()
	if err != nil {
		return nil, err
	}
	config, err := partial.ConfigLayer(image)
	if err != nil {
		return nil, err
	}
	return append(layers, config), nil
}

// readBlob reads a blob to its end, where its digest is checked.
func readBlob(blob v1.Layer, watch watcher) (n int64, err error) {
	dgst, err := blob.Digest()
	if err != nil {
		return 0, err
	}
	size, err := blob.Size()
	if err != nil {
		return 0, err
	}
	body, err := blob.Compressed()
	if err != nil {
		return 0, err
	}
	if watch != nil {
		body = watch(dgst.String(), size, body)
	}
	defer body.Close()
	if n, err = io.Copy(io.Discard, body); err != nil {
		return n, fmt.Errorf("blob %s: %w", dgst, err)
	}
	return n, nil
}

// readRange is a client that reads only n bytes of a blob.
func readRange(ctx context.Context, url string, off, n int64) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", off, off+n-1))
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusPartialContent {
		return nil, fmt.Errorf("asked for a range, got %s", resp.Status)
	}
	return io.ReadAll(resp.Body)
}
