package proxy_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/larder-registry/larder/cache"
	"github.com/larder-registry/larder/upstream/ecrtest"
)

func TestCachedContentIsServedAfterARestartWithoutTheUpstream(t *testing.T) {
	t.Parallel()
	r := newRig(t, settings{cache: cache.Options{
		Retry: hasty.Retry,
		Tags:  cache.Freshness{StaleIfError: time.Hour, Negative: time.Second},
	}})
	layer := ecrtest.Random(1, 100_000)
	image := r.addImage("v1", layer)
	wantStatus(t, r.get(manifestPath(app, "v1")), http.StatusOK)
	for _, blob := range image.Blobs {
		r.cache(blobPath(app, blob.Digest))
	}
	r.ecr.Stop()
	r.restart()

	wantTag(t, r.get(manifestPath(app, "v1")), image, "STALE")
	wantTag(t, r.head(manifestPath(app, "v1")), image, "STALE")
	wantTag(t, r.get(manifestPath(app, image.Root.Digest.String())), image, "HIT")
	blob := r.get(blobPath(app, image.Blobs[0].Digest))
	wantHeader(t, blob, "X-Cache", "HIT")
	wantBody(t, blob, bytesOf(t, layer))
}

func TestOtherContentFailsAtOnceAfterARestartWithoutTheUpstream(t *testing.T) {
	t.Parallel()
	r := newRig(t, settings{})
	image := r.addImage("v1", ecrtest.Random(1, 1000))
	r.ecr.Stop()
	r.restart()
	r.http.Timeout = 2 * time.Second
	for _, path := range []string{manifestPath(app, "v1"), manifestPath(app, image.Root.Digest.String())} {
		wantError(t, r.get(path), http.StatusServiceUnavailable, "UNAVAILABLE")
	}
	wantError(t, r.get(blobPath(app, image.Blobs[0].Digest)), http.StatusNotFound, "BLOB_UNKNOWN")
}

// Four segments of eight arrive whole, and half of each other one. None of these bytes
// are fetched again.
func TestRestartResumesTheFill(t *testing.T) {
	const half = 128 << 10
	r := newRig(t, settings{cache: inSegments})
	content := bytesOf(t, ecrtest.Random(1, 2<<20))
	desc := r.addBlob(app, ecrtest.Bytes(content))
	path := blobPath(app, desc.Digest)
	release := r.ecr.Inject(ecrtest.Fault{On: ecrtest.Storage, Skip: 4, StallAfter: new(int64(half))})
	defer release()
	client := r.open(http.MethodGet, path)
	r.meter.wait("larder.fill.bytes", 1<<20+4*half)
	client.Body.Close()
	r.stop()
	release()
	r.start()

	a := r.get(path)
	wantStatus(t, a, http.StatusOK)
	wantBody(t, a, content)
	const proof = 64 // bytes: nothing tells that the partial is of this repository
	if got := r.ecr.Stats().Blobs[desc.Digest].Bytes; got < desc.Size || got > desc.Size+proof {
		t.Errorf("%d bytes were fetched of a blob of %d", got, desc.Size)
	}
}
