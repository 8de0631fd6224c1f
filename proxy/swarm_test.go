package proxy_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"strconv"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/larder-registry/larder/upstream/ecrtest"
)

// swarm is how many clients pull at once.
const swarm = 16

func TestColdSwarmFetchesEachByteOnce(t *testing.T) {
	largest := int64(64 << 20)
	if raceEnabled {
		largest = 20 << 20 // the race detector is slow for many bytes
	}
	r := newRig(t, settings{})
	image := r.addImage("v1",
		ecrtest.Random(1, 1<<10), ecrtest.Random(2, 100_000), ecrtest.Random(3, 8<<20), ecrtest.Random(4, largest))
	clients, ctx := errgroup.WithContext(t.Context())
	for range swarm {
		clients.Go(func() error { return r.pull(ctx, "v1") })
	}
	if err := clients.Wait(); err != nil {
		t.Fatal(err)
	}
	r.wantFetchedOnce(image)
}

// Each client gets each blob in one of three ways: whole, whole until it hangs up, or in
// ranges. Clients do not disturb each other, and each fill completes.
func TestErraticSwarmFetchesEachByteOnce(t *testing.T) {
	seed := testSeed(t)
	r := newRig(t, settings{cache: inSegments})
	layers := []ecrtest.Content{
		ecrtest.Random(1, 1<<10), ecrtest.Random(2, 100_000), ecrtest.Random(3, 3<<20+1), ecrtest.Random(4, 12<<20),
	}
	image := r.addImage("v1", layers...)
	clients, ctx := errgroup.WithContext(t.Context())
	for i := range swarm {
		rnd := rand.New(rand.NewPCG(seed, uint64(i)))
		clients.Go(func() error {
			for _, l := range rnd.Perm(len(layers)) {
				if err := r.pullErratically(ctx, rnd, image.Blobs[l], layers[l]); err != nil {
					return err
				}
			}
			return r.fetch(ctx, image.Blobs[len(layers)]) // the config
		})
	}
	if err := clients.Wait(); err != nil {
		t.Fatal(err)
	}
	r.wantFetchedOnce(image)
}

// testSeed returns the seed of a random test, and logs it. LARDER_TEST_SEED sets it, to
// repeat a failure.
func testSeed(t *testing.T) uint64 {
	t.Helper()
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv("LARDER_TEST_SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("LARDER_TEST_SEED=%d", seed)
	return seed
}

// wantFetchedOnce waits for the fills of an image's blobs, and checks how many bytes of
// each the storage sent.
func (r *rig) wantFetchedOnce(image *ecrtest.Added) {
	r.t.Helper()
	r.meter.wait("larder.fills", int64(len(image.Blobs)))
	stats := r.ecr.Stats()
	for _, blob := range image.Blobs {
		if got := stats.Blobs[blob.Digest].Bytes; got != blob.Size {
			r.t.Errorf("%d bytes were fetched of a blob of %d", got, blob.Size)
		}
		if size, err := r.store.Stat(blob.Digest); err != nil || size != blob.Size {
			r.t.Errorf("a blob of %d bytes is in the store with %d: %v", blob.Size, size, err)
		}
	}
}

// do sends a GET, and f reads the body.
func (r *rig) do(ctx context.Context, path, byteRange string, f func(*http.Response) error) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, r.server.URL+path, nil)
	if err != nil {
		return err
	}
	if byteRange != "" {
		req.Header.Set("Range", byteRange)
	}
	resp, err := r.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode >= 300 {
		return fmt.Errorf("GET %s: %s", path, resp.Status)
	}
	return f(resp)
}

// pull fetches an image as a runtime does, and checks every digest.
func (r *rig) pull(ctx context.Context, reference string) error {
	var m ocispec.Manifest
	err := r.do(ctx, manifestPath(app, reference), "", func(resp *http.Response) error {
		return json.NewDecoder(resp.Body).Decode(&m)
	})
	if err != nil {
		return err
	}
	blobs, ctx := errgroup.WithContext(ctx)
	for _, desc := range append(m.Layers, m.Config) {
		blobs.Go(func() error { return r.fetch(ctx, desc) })
	}
	return blobs.Wait()
}

// fetch fetches a blob and checks its digest.
func (r *rig) fetch(ctx context.Context, desc ocispec.Descriptor) error {
	return r.do(ctx, blobPath(app, desc.Digest), "", func(resp *http.Response) error {
		verifier := desc.Digest.Verifier()
		n, err := io.Copy(verifier, resp.Body)
		if err == nil && (n != desc.Size || !verifier.Verified()) {
			err = errors.New("the digest is wrong")
		}
		if err != nil {
			return fmt.Errorf("blob of %d bytes, after %d: %w", desc.Size, n, err)
		}
		return nil
	})
}

func (r *rig) pullErratically(ctx context.Context, rnd *rand.Rand, desc ocispec.Descriptor, content ecrtest.Content) error {
	switch rnd.IntN(3) {
	case 0:
		return r.fetch(ctx, desc)
	case 1:
		return r.do(ctx, blobPath(app, desc.Digest), "", func(resp *http.Response) error {
			_, err := io.CopyN(io.Discard, resp.Body, rnd.Int64N(desc.Size))
			return err
		})
	}
	for range 4 {
		from := rnd.Int64N(desc.Size)
		want := make([]byte, 1+rnd.Int64N(min(desc.Size-from, 1<<20)))
		if _, err := content.ReadAt(want, from); err != nil && err != io.EOF {
			return err
		}
		byteRange := fmt.Sprintf("bytes=%d-%d", from, from+int64(len(want))-1)
		err := r.do(ctx, blobPath(app, desc.Digest), byteRange, func(resp *http.Response) error {
			got, err := io.ReadAll(resp.Body)
			if err == nil && !bytes.Equal(got, want) {
				err = errors.New("the bytes are wrong")
			}
			if err != nil {
				return fmt.Errorf("%s of %d: %w", byteRange, desc.Size, err)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}
