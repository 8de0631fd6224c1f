package proxy_test

import (
	"context"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/larder-registry/larder/cache"
	"github.com/larder-registry/larder/upstream/ecrtest"
)

// The benchmarks measure from socket to socket. The client, Larder and, on a miss, the fake
// ECR, which generates bytes while it sends them, share the processors.

const benchBlob = 64 << 20

// newBenchRig is a rig with one image, whose tag stays fresh, and a client that
// keeps its connections. It returns the path of the image's one layer.
func newBenchRig(b *testing.B) (*rig, string) {
	b.Helper()
	r := newRig(b, settings{cache: cache.Options{Tags: cache.Freshness{TTL: time.Hour}}})
	transport := &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: swarm}
	b.Cleanup(transport.CloseIdleConnections)
	r.http = &http.Client{Transport: transport}
	return r, blobPath(app, r.addImage("v1", ecrtest.Random(1, benchBlob)).Blobs[0].Digest)
}

// drain fetches n bytes of a path and drops them.
func (r *rig) drain(ctx context.Context, path string, n int64) error {
	return r.do(ctx, path, "", func(resp *http.Response) error {
		_, err := io.CopyN(io.Discard, resp.Body, n)
		return err
	})
}

// cold waits for the n-th fill and removes its blob, while the timer is stopped.
func (r *rig) cold(b *testing.B, n int64) {
	b.StopTimer()
	defer b.StartTimer()
	r.meter.wait("larder.fills", n)
	if err := os.RemoveAll(filepath.Join(r.dir, "blobs")); err != nil {
		b.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(r.dir, "blobs"), 0o750); err != nil {
		b.Fatal(err)
	}
}

func BenchmarkHit(b *testing.B) {
	r, path := newBenchRig(b)
	r.cache(path)
	b.SetBytes(benchBlob)
	for b.Loop() {
		if err := r.drain(b.Context(), path, benchBlob); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkHotManifest(b *testing.B) {
	r, _ := newBenchRig(b)
	path := manifestPath(app, "v1")
	size := int64(len(r.get(path).body))
	b.SetBytes(size)
	b.ReportAllocs() // including those of the client
	for b.Loop() {
		if err := r.drain(b.Context(), path, size); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkMiss(b *testing.B) {
	r, path := newBenchRig(b)
	b.SetBytes(benchBlob)
	var n int64
	for b.Loop() {
		if err := r.drain(b.Context(), path, benchBlob); err != nil {
			b.Fatal(err)
		}
		n++
		r.cold(b, n)
	}
}

func BenchmarkSixteenReadersOfOneFill(b *testing.B) {
	r, path := newBenchRig(b)
	b.SetBytes(swarm * benchBlob)
	var n int64
	for b.Loop() {
		readers, ctx := errgroup.WithContext(b.Context())
		for range swarm {
			readers.Go(func() error { return r.drain(ctx, path, benchBlob) })
		}
		if err := readers.Wait(); err != nil {
			b.Fatal(err)
		}
		n++
		r.cold(b, n)
	}
}

func BenchmarkFirstByteOnMiss(b *testing.B) {
	r, path := newBenchRig(b)
	var n int64
	for b.Loop() {
		if err := r.drain(b.Context(), path, 1); err != nil {
			b.Fatal(err)
		}
		n++
		r.cold(b, n)
	}
	b.ReportMetric(b.Elapsed().Seconds()*1000/float64(n), "ms/first-byte")
}
