package load

import (
	"context"
	"net/http"
	"slices"
	"sync"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/larder-registry/larder/cmd/bench/internal/upstream"
)

// parallel is how many blobs of an image containerd fetches at once (max_concurrent_downloads).
const parallel = 3

// Pull pulls an image as containerd does: HEAD of the tag, GET of the manifest by digest, then the config and the layers,
// three at a time. It returns how many bytes it got. With verify it hashes every byte, as containerd does. Without, it
// drops them, as if the client had processors of its own.
func Pull(ctx context.Context, t Target, img *upstream.Image, verify bool) (bytes int64, err error) {
	c := NewClient(ctx)
	defer c.Close()
	resp, err := c.Do(t, Request{Method: http.MethodHead, Path: img.TagPath()})
	if err != nil {
		return 0, err
	}
	if _, err := resp.Discard(); err != nil {
		return 0, err
	}
	bytes, err = c.Get(t, img.ManifestPath(), img.Manifest(), verify)
	if err != nil {
		return 0, err
	}
	all := img.Blobs()
	blobs := make(chan ocispec.Descriptor, len(all))
	for _, blob := range all {
		blobs <- blob
	}
	close(blobs)
	group, ctx := errgroup.WithContext(ctx)
	var got [parallel]int64
	for i := range parallel {
		group.Go(func() error {
			c := NewClient(ctx)
			defer c.Close()
			for blob := range blobs {
				n, err := c.Get(t, img.BlobPath(blob.Digest), blob, verify)
				if err != nil {
					return err
				}
				got[i] += n
			}
			return nil
		})
	}
	err = group.Wait()
	return bytes + sum(got[:]), err
}

// PullAll has clients pull an image at once, each of them times times, and returns how many bytes they got and how long
// it took.
func PullAll(ctx context.Context, t Target, img *upstream.Image, clients, times int, verify bool) (bytes int64, took time.Duration, err error) {
	return PullEach(ctx, t, slices.Repeat([]*upstream.Image{img}, clients), times, verify)
}

// PullEach is PullAll with a client for each image.
func PullEach(ctx context.Context, t Target, images []*upstream.Image, times int, verify bool) (bytes int64, took time.Duration, err error) {
	began := time.Now()
	got := make([]int64, len(images))
	group, ctx := errgroup.WithContext(ctx)
	for i, img := range images {
		group.Go(func() error {
			for range times {
				n, err := Pull(ctx, t, img, verify)
				if err != nil {
					return err
				}
				got[i] += n
			}
			return nil
		})
	}
	err = group.Wait()
	return sum(got), time.Since(began), err
}

// PullAgain has clients pull an image again and again for some time, with a pause after each pull, and returns how long
// each pull took.
func PullAgain(ctx context.Context, t Target, img *upstream.Image, clients int, lasts, pause time.Duration) ([]time.Duration, error) {
	var mu sync.Mutex // guards took
	var took []time.Duration
	end := time.Now().Add(lasts)
	group, ctx := errgroup.WithContext(ctx)
	for range clients {
		group.Go(func() error {
			for time.Now().Before(end) {
				began := time.Now()
				if _, err := Pull(ctx, t, img, false); err != nil {
					return err
				}
				mu.Lock()
				took = append(took, time.Since(began))
				mu.Unlock()
				if err := wait(ctx, pause); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return took, group.Wait()
}

// wait returns after d, or with an error when ctx ends first.
func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func sum(ns []int64) (sum int64) {
	for _, n := range ns {
		sum += n
	}
	return sum
}
