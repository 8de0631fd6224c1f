package proxy_test

import (
	"net/http"
	"testing"

	"github.com/larder-registry/larder/upstream/ecrtest"
)

// A pull through an empty cache asks the upstream what a pull straight from it does: whether the tag has moved, for the
// manifest, and for each blob once, with one redirect.
func TestColdPullAsksNoMoreThanADirectPull(t *testing.T) {
	r := newRig(t, settings{})
	img := r.addImage("v1", ecrtest.Random(1, 1<<20), ecrtest.Random(2, 2<<20), ecrtest.Random(3, 4<<10))
	r.head(manifestPath(app, "v1"))
	r.get(manifestPath(app, img.Root.Digest.String()))
	for _, blob := range img.Blobs {
		r.get(blobPath(app, blob.Digest))
	}
	stats := r.ecr.Stats()
	for op, most := range map[ecrtest.Op]int{ecrtest.Manifest: 2, ecrtest.Blob: len(img.Blobs), ecrtest.Storage: len(img.Blobs)} {
		if got := stats.Requests[op]; got > most {
			t.Errorf("%d requests of kind %v, want %d at most", got, op, most)
		}
	}
}

// Every layer hangs until the config has been answered, so the config cannot have waited for one.
func TestConfigDoesNotWaitForItsLayers(t *testing.T) {
	r := newRig(t, settings{})
	img := r.addImage("v1", ecrtest.Random(1, 20<<20), ecrtest.Random(2, 20<<20), ecrtest.Random(3, 20<<20))
	r.get(manifestPath(app, "v1"))
	layers, config := img.Blobs[:len(img.Blobs)-1], img.Blobs[len(img.Blobs)-1]
	var begun []*http.Response
	for _, layer := range layers {
		release := r.ecr.Inject(ecrtest.Fault{On: ecrtest.Storage, Digest: layer.Digest, StallAfter: new(int64(0))})
		defer release()
		begun = append(begun, r.open(http.MethodGet, blobPath(app, layer.Digest)))
	}
	a := r.get(blobPath(app, config.Digest))
	wantStatus(t, a, http.StatusOK)
	if int64(len(a.body)) != config.Size {
		t.Errorf("%d bytes of a config of %d", len(a.body), config.Size)
	}
	for _, resp := range begun {
		resp.Body.Close()
	}
}
