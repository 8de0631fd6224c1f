package proxy_test

import (
	"net/http"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/larder-registry/larder/upstream/ecrtest"
)

func TestCachedBlobStaysInItsRepository(t *testing.T) {
	r := newRig(t, settings{})
	layer := ecrtest.Random(1, 100_000)
	desc := r.addBlob(app, layer)
	r.addBlob("team/other", ecrtest.Random(2, 10))
	r.cache(blobPath(app, desc.Digest))

	asked := r.ecr.Stats().Requests[ecrtest.Blob]
	other := blobPath("team/other", desc.Digest)
	for _, a := range []answer{r.get(other), r.head(other), r.get(other, "Range", "bytes=0-9"), r.get(blobPath("no/such", desc.Digest))} {
		wantError(t, a, http.StatusNotFound, "BLOB_UNKNOWN")
	}
	if got := r.ecr.Stats().Requests[ecrtest.Blob]; got == asked {
		t.Error("the upstream was not asked whether the repository has the blob")
	}

	// A dead upstream cannot confirm a member.
	r.addBlob("team/third", layer)
	r.ecr.Stop()
	wantError(t, r.get(blobPath("team/third", desc.Digest)), http.StatusNotFound, "BLOB_UNKNOWN")
	wantStatus(t, r.get(blobPath(app, desc.Digest)), http.StatusOK)
}

func TestBlobOfTwoRepositoriesIsFetchedOnce(t *testing.T) {
	r := newRig(t, settings{})
	layer := ecrtest.Random(1, 100_000)
	desc := r.addBlob(app, layer)
	r.addBlob("team/other", layer)
	content := r.cache(blobPath(app, desc.Digest))

	a := r.get(blobPath("team/other", desc.Digest))
	wantStatus(t, a, http.StatusOK)
	wantBody(t, a, content)
	wantHeader(t, a, "X-Cache", "HIT")
	if got := r.ecr.Stats().Blobs[desc.Digest].Bytes; got != layer.Size() {
		t.Errorf("%d bytes were fetched of a layer of %d", got, layer.Size())
	}
}

func TestManifestStaysInItsRepository(t *testing.T) {
	r := newRig(t, settings{})
	image := r.addImage("v1", ecrtest.Random(1, 1000))
	r.addBlob("team/other", ecrtest.Random(2, 10))
	wantStatus(t, r.get(manifestPath(app, "v1")), http.StatusOK)
	wantError(t, r.get(manifestPath("team/other", image.Root.Digest.String())), http.StatusNotFound, "MANIFEST_UNKNOWN")
}

// If containerd finds no manifest with a digest, it asks for a blob with it, and takes any
// 200 for the content.
func TestManifestIsNotServedAsABlob(t *testing.T) {
	r := newRig(t, settings{})
	image, err := r.ecr.AddImage(app, "v1", ecrtest.Image{Platforms: []string{"linux/amd64", "linux/arm64"}})
	if err != nil {
		t.Fatal(err)
	}
	wantStatus(t, r.get(manifestPath(app, "v1")), http.StatusOK)
	wantStatus(t, r.get(manifestPath(app, image.Manifests[0].Digest.String())), http.StatusOK)
	for what, desc := range map[string]ocispec.Descriptor{
		"the index": image.Root, "a cached manifest": image.Manifests[0], "a manifest that is not cached": image.Manifests[1],
	} {
		for _, method := range []string{http.MethodHead, http.MethodGet} {
			if a := r.ask(method, blobPath(app, desc.Digest)); a.StatusCode != http.StatusNotFound {
				t.Errorf("%s of %s as a blob: %s", method, what, a.Status)
			}
		}
	}
}
