package proxy_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/larder-registry/larder/upstream/ecrtest"
)

// A client that gets a 200 asks no other host, whatever the length is.
func TestLayerThatIsNotWhatItsManifestSaysIsNotFound(t *testing.T) {
	octets := http.Header{"Content-Type": {"application/octet-stream"}}
	part := octets.Clone()
	part.Set("Content-Range", "bytes 0-999/1000")
	for name, fault := range map[string]ecrtest.Fault{
		"a login page":       {Status: http.StatusOK, Body: "<html>Log in</html>", Header: http.Header{"Content-Type": {"text/html"}}},
		"another length":     {Status: http.StatusOK, Body: "short", Header: octets},
		"a part as a whole":  {Status: http.StatusOK, Body: strings.Repeat("x", 1000), Header: part},
		"a page as the blob": {Status: http.StatusOK, Body: strings.Repeat("x", 1000), Header: http.Header{"Content-Type": {"Text/HTML"}}},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, settings{})
			layer := ecrtest.Random(1, 1000)
			image := r.addImage("v1", layer)
			wantStatus(t, r.get(manifestPath(app, "v1")), http.StatusOK)
			path := blobPath(app, image.Blobs[0].Digest)
			fault.On = ecrtest.Storage
			remove := r.ecr.Inject(fault)
			wantError(t, r.get(path), http.StatusNotFound, "BLOB_UNKNOWN")
			wantError(t, r.get(path, "Range", "bytes=10-"), http.StatusNotFound, "BLOB_UNKNOWN")
			wantStatus(t, r.head(path), http.StatusOK) // the manifest tells the size
			remove()
		})
	}
}
