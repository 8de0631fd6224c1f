package proxy_test

import (
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/larder-registry/larder/cache"
	"github.com/larder-registry/larder/upstream/ecrtest"
)

// stable returns the headers that must be equal for hits and misses.
func stable(a answer) http.Header {
	h := a.Header.Clone()
	h.Del("Date")
	h.Del("X-Cache")
	if mediaType, _, ok := strings.Cut(h.Get("Content-Type"), "; boundary="); ok { // which is random
		h.Set("Content-Type", mediaType)
	}
	return h
}

func wantSameHeaders(t *testing.T, a, b answer) {
	t.Helper()
	if diff := cmp.Diff(stable(a), stable(b)); diff != "" {
		t.Errorf("%s %s: headers differ (-%s +%s):\n%s",
			a.Request.Method, a.Request.URL.Path, a.Header.Get("X-Cache"), b.Header.Get("X-Cache"), diff)
	}
}

func TestBlobsHaveTheirHeaders(t *testing.T) {
	r := newRig(t, settings{})
	desc := r.addBlob(app, ecrtest.Random(1, 100_000))
	path := blobPath(app, desc.Digest)
	want := http.Header{
		"Accept-Ranges":         {"bytes"},
		"Content-Length":        {"100000"},
		"Content-Type":          {"application/octet-stream"},
		"Docker-Content-Digest": {desc.Digest.String()},
		"Etag":                  {`"` + desc.Digest.String() + `"`},
	}
	headMiss := r.head(path)
	r.meter.wait("larder.fills", 1) // only the fill knows the size
	headHit := r.head(path)
	wantHeader(t, headMiss, "X-Cache", "MISS")
	wantHeader(t, headHit, "X-Cache", "HIT")
	for _, a := range []answer{headMiss, r.get(path), headHit} {
		wantStatus(t, a, http.StatusOK)
		if diff := cmp.Diff(want, stable(a)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", a.Request.Method, diff)
		}
	}
	wantSameHeaders(t, r.head(path, "Range", "bytes=10-19"), r.get(path, "Range", "bytes=10-19"))
}

// The manifest has the size of the layer.
func TestHeadOfKnownLayerFetchesNothing(t *testing.T) {
	r := newRig(t, settings{})
	image := r.addImage("v1", ecrtest.Random(1, 100_000))
	wantStatus(t, r.get(manifestPath(app, "v1")), http.StatusOK)
	head := r.head(blobPath(app, image.Blobs[0].Digest))
	if got := r.ecr.Stats(); got.Requests[ecrtest.Blob] != 0 || got.Bytes() != 0 {
		t.Errorf("the upstream was asked: %v", got.Requests)
	}
	wantSameHeaders(t, head, r.get(blobPath(app, image.Blobs[0].Digest)))
}

func TestManifestsHaveTheirHeaders(t *testing.T) {
	r := newRig(t, settings{cache: cache.Options{Tags: cache.Freshness{TTL: time.Hour}}})
	image := r.addImage("v1", ecrtest.Random(1, 1000))
	size := strconv.FormatInt(image.Root.Size, 10)
	want := http.Header{
		"Accept-Ranges":         {"bytes"},
		"Content-Length":        {size},
		"Content-Type":          {image.Root.MediaType},
		"Docker-Content-Digest": {image.Root.Digest.String()},
		"Etag":                  {`"` + image.Root.Digest.String() + `"`},
	}
	for _, reference := range []string{"v1", image.Root.Digest.String()} {
		for _, method := range []string{http.MethodHead, http.MethodGet} {
			a := r.ask(method, manifestPath(app, reference))
			wantStatus(t, a, http.StatusOK)
			if diff := cmp.Diff(want, stable(a)); diff != "" {
				t.Errorf("%s %s (-want +got):\n%s", method, reference, diff)
			}
		}
	}
}

func TestConditionsAreHonoured(t *testing.T) {
	r := newRig(t, settings{cache: cache.Options{Tags: cache.Freshness{TTL: time.Hour}}})
	content := bytesOf(t, ecrtest.Random(1, 1000))
	image := r.addImage("v1", ecrtest.Bytes(content))
	blob := blobPath(app, image.Blobs[0].Digest)
	same := `"` + image.Blobs[0].Digest.String() + `"`
	manifest, sameManifest := manifestPath(app, "v1"), `"`+image.Root.Digest.String()+`"`
	for range 2 { // once on a miss, once on a hit
		for _, test := range []struct {
			path, name, value string
			status, n         int
		}{
			{blob, "If-None-Match", same, http.StatusNotModified, 0},
			{blob, "If-None-Match", "*", http.StatusNotModified, 0},
			{blob, "If-None-Match", `"other"`, http.StatusPartialContent, 100},
			{blob, "If-Range", same, http.StatusPartialContent, 100},
			{blob, "If-Range", `"other"`, http.StatusOK, 1000},
			{blob, "If-Match", same, http.StatusPartialContent, 100},
			{blob, "If-Match", `"other"`, http.StatusPreconditionFailed, 0},
			{manifest, "If-None-Match", sameManifest, http.StatusNotModified, 0},
			{manifest, "If-None-Match", same, http.StatusPartialContent, 100},
		} {
			a := r.get(test.path, test.name, test.value, "Range", "bytes=0-99")
			if a.StatusCode != test.status || len(a.body) != test.n || a.err != nil {
				t.Errorf("GET %s, %s: %s: %s, %d bytes, %v; want %d, %d bytes",
					test.path, test.name, test.value, a.Status, len(a.body), a.err, test.status, test.n)
			}
			if a.StatusCode == http.StatusNotModified {
				wantHeader(t, a, "Etag", map[string]string{blob: same, manifest: sameManifest}[test.path])
			}
		}
		r.meter.wait("larder.fills", 1)
	}
}

// If a client does not accept the stored type, ECR converts the manifest, which changes
// its digest. Here a tag has one digest for all clients.
func TestAcceptDoesNotChangeTheManifest(t *testing.T) {
	const docker = "application/vnd.docker.distribution.manifest.v2+json"
	raw := []byte(`{"schemaVersion":2,"mediaType":"` + docker + `","layers":[]}`)
	for _, accept := range []string{"application/vnd.oci.image.manifest.v1+json", docker, "*/*", ""} {
		r := newRig(t, settings{}) // with an empty cache
		desc, err := r.ecr.AddManifest(app, "v1", docker, raw)
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			for _, a := range []answer{r.get(manifestPath(app, "v1"), "Accept", accept), r.head(manifestPath(app, "v1"), "Accept", accept)} {
				wantStatus(t, a, http.StatusOK)
				wantHeader(t, a, "Content-Type", docker)
				wantHeader(t, a, "Docker-Content-Digest", desc.Digest.String())
			}
		}
	}
}
