package proxy_test

import (
	"bytes"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/larder-registry/larder/cache"
	"github.com/larder-registry/larder/upstream/ecrtest"
)

// newReplicatedRig returns a rig whose upstream has a replica in another region.
func newReplicatedRig(t *testing.T, set settings) *rig {
	t.Helper()
	r := newRig(t, set)
	replica, err := ecrtest.Start(ecrtest.Options{Region: "us-west-2", AWS: r.ecr.AWS()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := replica.Close(); err != nil {
			t.Error(err)
		}
	})
	r.set.replica = replica
	return r
}

func TestLayerContinuesFromTheReplicaIfItsRegionDies(t *testing.T) {
	const size, arrives = 4 << 20, 1 << 20
	r := newReplicatedRig(t, settings{cache: cache.Options{Connections: 1}})
	content := ecrtest.Random(1, size)
	layer := r.addBlob(app, content)
	if _, err := r.set.replica.AddBlob(app, content); err != nil {
		t.Fatal(err)
	}
	r.ecr.Inject(ecrtest.Fault{On: ecrtest.Storage, StallAfter: new(int64(arrives))})

	resp := r.open(http.MethodGet, blobPath(app, layer.Digest))
	got := make([]byte, arrives, size)
	if _, err := io.ReadFull(resp.Body, got); err != nil {
		t.Fatal(err)
	}
	r.ecr.Stop()
	rest, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if got = append(got, rest...); !bytes.Equal(got, bytesOf(t, content)) {
		t.Errorf("%d bytes that are not the layer's", len(got))
	}
	primary, replica := r.ecr.Stats().Bytes(), r.set.replica.Stats().Bytes()
	if primary != arrives || replica != size-arrives {
		t.Errorf("the regions sent %d and %d bytes, want %d and %d", primary, replica, arrives, size-arrives)
	}
}

func TestImageIsPulledFromTheReplicaOnceItsTagIsKnown(t *testing.T) {
	r := newReplicatedRig(t, settings{cache: cache.Options{Retry: hasty.Retry, Tags: cache.Freshness{StaleIfError: time.Hour}}})
	image := r.addImage("v1", ecrtest.Random(1, 1000))
	if _, err := r.set.replica.AddImage(app, "v1", ecrtest.Image{Layers: []ecrtest.Layer{{Content: ecrtest.Random(1, 1000)}}}); err != nil {
		t.Fatal(err)
	}
	wantStatus(t, r.get(manifestPath(app, "v1")), http.StatusOK)
	r.ecr.Stop()
	a := r.get(manifestPath(app, "v1"))
	wantStatus(t, a, http.StatusOK)
	wantHeader(t, a, "X-Cache", "STALE")
	for _, blob := range image.Blobs {
		wantStatus(t, r.get(blobPath(app, blob.Digest)), http.StatusOK)
	}
	wantError(t, r.get(manifestPath(app, "v2")), http.StatusServiceUnavailable, "UNAVAILABLE")
}
