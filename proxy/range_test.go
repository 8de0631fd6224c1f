package proxy_test

import (
	"bytes"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/cache"
	"github.com/larder-registry/larder/upstream/ecrtest"
)

// ranges are the forms of Range on a blob of rangeBlob bytes, and the response to each:
// the ranges [from,to), or 416 if there are none.
var ranges = []struct {
	header string
	status int
	parts  [][2]int
}{
	{"bytes=500-1499", http.StatusPartialContent, [][2]int{{500, 1500}}},
	{"bytes=500-", http.StatusPartialContent, [][2]int{{500, rangeBlob}}},
	{"bytes=-500", http.StatusPartialContent, [][2]int{{rangeBlob - 500, rangeBlob}}},
	{"bytes=0-0", http.StatusPartialContent, [][2]int{{0, 1}}},
	{"bytes=1048575-1048575", http.StatusPartialContent, [][2]int{{rangeBlob - 1, rangeBlob}}},
	{"bytes=1000000-9999999", http.StatusPartialContent, [][2]int{{1000000, rangeBlob}}},
	{"bytes=0-99,1000000-1000099", http.StatusPartialContent, [][2]int{{0, 100}, {1000000, 1000100}}},
	{"bytes=1048576-", http.StatusRequestedRangeNotSatisfiable, nil},
	{"bytes=500-0", http.StatusRequestedRangeNotSatisfiable, nil},
	{"bytes=garbage", http.StatusRequestedRangeNotSatisfiable, nil},
	{"", http.StatusOK, [][2]int{{0, rangeBlob}}},
}

const rangeBlob = 1 << 20

// inSegments makes Larder fetch a blob of rangeBlob bytes in parallel.
var inSegments = cache.Options{Segment: 256 << 10}

func TestRangesOnMissAndHit(t *testing.T) {
	r := newRig(t, settings{cache: inSegments})
	for i, want := range ranges {
		t.Run(want.header, func(t *testing.T) {
			content := bytesOf(t, ecrtest.Random(uint64(i), rangeBlob))
			desc := r.addBlob(app, ecrtest.Bytes(content))
			path := blobPath(app, desc.Digest)
			fills := r.meter.count("larder.fills")

			miss := r.get(path, rangeHeader(want.header)...)
			wantHeader(t, miss, "X-Cache", "MISS")
			wantRanges(t, miss, content, want.status, want.parts)
			r.meter.wait("larder.fills", fills+1)

			hit := r.get(path, rangeHeader(want.header)...)
			wantHeader(t, hit, "X-Cache", "HIT")
			wantRanges(t, hit, content, want.status, want.parts)
			wantSameHeaders(t, miss, hit)

			if got := r.ecr.Stats().Blobs[desc.Digest].Bytes; got != rangeBlob {
				t.Errorf("%d bytes were fetched of a blob of %d", got, rangeBlob)
			}
		})
	}
}

// The first connection stalls inside the first segment, so that the blob is incomplete
// when each response begins.
func TestRangesWhileFilling(t *testing.T) {
	r := newRig(t, settings{cache: inSegments})
	content := bytesOf(t, ecrtest.Random(1, rangeBlob))
	desc := r.addBlob(app, ecrtest.Bytes(content))
	path := blobPath(app, desc.Digest)
	release := r.ecr.Inject(ecrtest.Fault{On: ecrtest.Storage, Times: 1, StallAfter: new(int64(64 << 10))})

	var filling []answer
	for _, want := range ranges {
		filling = append(filling, answer{Response: r.open(http.MethodGet, path, rangeHeader(want.header)...)})
	}
	head := r.head(path)
	if _, err := r.store.Stat(desc.Digest); err == nil {
		t.Fatal("the blob is complete though its first connection is held back")
	}
	release()
	for i, want := range ranges {
		filling[i] = read(filling[i].Response)
		wantRanges(t, filling[i], content, want.status, want.parts)
		wantHeader(t, filling[i], "X-Cache", "MISS")
	}
	r.meter.wait("larder.fills", 1)
	for i, want := range ranges {
		hit := r.get(path, rangeHeader(want.header)...)
		wantHeader(t, hit, "X-Cache", "HIT")
		wantRanges(t, hit, content, want.status, want.parts)
		wantSameHeaders(t, filling[i], hit)
	}
	wantSameHeaders(t, head, r.get(path))
	if got := r.ecr.Stats().Blobs[desc.Digest].Bytes; got != rangeBlob {
		t.Errorf("%d bytes were fetched of a blob of %d", got, rangeBlob)
	}
}

// The connection at offset 0 stalls until the far range is answered, so that range cannot
// have waited for the bytes before it.
func TestFarRangeDoesNotWaitForTheBytesBefore(t *testing.T) {
	const size = 32 << 20
	r := newRig(t, settings{})
	content := ecrtest.Random(7, size)
	desc := r.addBlob(app, content)
	path := blobPath(app, desc.Digest)
	release := r.ecr.Inject(ecrtest.Fault{On: ecrtest.Storage, Times: 1, StallAfter: new(int64(0))})
	defer release()

	far := r.get(path, "Range", "bytes=30000000-30099999")
	wantStatus(t, far, http.StatusPartialContent)
	want := make([]byte, 100000)
	if _, err := content.ReadAt(want, 30000000); err != nil {
		t.Fatal(err)
	}
	wantBody(t, far, want)

	release()
	r.meter.wait("larder.fills", 1)
	if got := r.ecr.Stats().Blobs[desc.Digest].Bytes; got != size {
		t.Errorf("%d bytes were fetched of a blob of %d", got, size)
	}
}

func TestRangeOfEmptyBlobIsTheEmptyBlob(t *testing.T) {
	r := newRig(t, settings{})
	desc := r.addBlob(app, ecrtest.Bytes(nil))
	for range 2 {
		a := r.get(blobPath(app, desc.Digest), "Range", "bytes=0-99")
		wantStatus(t, a, http.StatusOK)
		wantBody(t, a, nil)
		wantHeader(t, a, "Content-Length", "0")
	}
}

// zstd:chunked asks for up to 1,024 ranges at once.
func TestOneRequestMayHaveAThousandRanges(t *testing.T) {
	r := newRig(t, settings{cache: inSegments})
	content := bytesOf(t, ecrtest.Random(3, rangeBlob))
	path := blobPath(app, r.addBlob(app, ecrtest.Bytes(content)).Digest)
	header := "bytes="
	var parts [][2]int
	for i := range 1024 {
		from := i * 1000
		header += fmt.Sprintf("%d-%d,", from, from+99)
		parts = append(parts, [2]int{from, from + 100})
	}
	for range 2 {
		wantRanges(t, r.get(path, "Range", header[:len(header)-1]), content, http.StatusPartialContent, parts)
		r.meter.wait("larder.fills", 1)
	}
}

func rangeHeader(v string) []string {
	if v == "" {
		return nil
	}
	return []string{"Range", v}
}

// wantRanges checks the response to a Range against the whole content.
func wantRanges(t *testing.T, a answer, content []byte, status int, parts [][2]int) {
	t.Helper()
	wantStatus(t, a, status)
	wantHeader(t, a, "Docker-Content-Digest", digest.FromBytes(content).String())
	switch {
	case len(parts) == 0:
		wantHeader(t, a, "Content-Range", rangeOf416(a, len(content)))
	case len(parts) > 1:
		wantParts(t, a, content, parts)
	default:
		from, to := parts[0][0], parts[0][1]
		wantBody(t, a, content[from:to])
		wantHeader(t, a, "Content-Length", fmt.Sprint(to-from))
		wantHeader(t, a, "Content-Type", "application/octet-stream")
		wantHeader(t, a, "Accept-Ranges", "bytes")
		if status == http.StatusPartialContent {
			wantHeader(t, a, "Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, to-1, len(content)))
		}
	}
}

// rangeOf416 is the Content-Range of a 416: the size, unless net/http could not parse the
// Range.
func rangeOf416(a answer, size int) string {
	if a.Request.Header.Get("Range") == "bytes=1048576-" {
		return fmt.Sprintf("bytes */%d", size)
	}
	return ""
}

// wantParts checks a multipart/byteranges body (RFC 9110, 14.6).
func wantParts(t *testing.T, a answer, content []byte, parts [][2]int) {
	t.Helper()
	mediaType, params, err := mime.ParseMediaType(a.Header.Get("Content-Type"))
	if err != nil || mediaType != "multipart/byteranges" {
		t.Fatalf("Content-Type: %q, want multipart/byteranges", a.Header.Get("Content-Type"))
	}
	reader := multipart.NewReader(bytes.NewReader(a.body), params["boundary"])
	for _, want := range parts {
		part, err := reader.NextPart()
		if err != nil {
			t.Fatalf("part %v: %v", want, err)
		}
		got, err := io.ReadAll(part)
		if err != nil {
			t.Fatalf("part %v: %v", want, err)
		}
		if !bytes.Equal(got, content[want[0]:want[1]]) {
			t.Errorf("part %v: %d wrong bytes", want, len(got))
		}
	}
	if _, err := reader.NextPart(); err != io.EOF {
		t.Errorf("after %d parts: %v, want the end", len(parts), err)
	}
}

// The manifest has the size.
func TestStorageMayOmitTheSize(t *testing.T) {
	r := newRig(t, settings{})
	image := r.addImage("v1", ecrtest.Random(1, 1000))
	r.ecr.Inject(ecrtest.Fault{On: ecrtest.Storage, Header: http.Header{"Content-Range": {"bytes 0-999/*"}}})
	wantStatus(t, r.get(manifestPath(app, "v1")), http.StatusOK)
	wantBody(t, r.get(blobPath(app, image.Blobs[0].Digest)), bytesOf(t, ecrtest.Random(1, 1000)))
}

func TestRangesAreBounded(t *testing.T) {
	r := newRig(t, settings{})
	image := r.addImage("v1", ecrtest.Random(1, 100_000))
	path := blobPath(app, image.Blobs[0].Digest)
	r.cache(path)
	many := func(n int) string {
		return "bytes=" + strings.TrimSuffix(strings.Repeat("0-0,", n), ",")
	}
	wantStatus(t, r.get(path, "Range", many(1024)), http.StatusPartialContent)
	for _, path := range []string{path, manifestPath(app, "v1")} {
		a := r.get(path, "Range", many(1025))
		wantStatus(t, a, http.StatusRequestedRangeNotSatisfiable)
		if !strings.Contains(string(a.body), "RANGE_INVALID") {
			t.Errorf("%s: %s", path, a.body)
		}
	}
	for _, huge := range []string{"bytes=0-99999999999999999999999", "bytes=99999999999999999999999-", "bytes=-9223372036854775808", "bytes=9223372036854775807-"} {
		if a := r.get(path, "Range", huge); a.StatusCode != http.StatusRequestedRangeNotSatisfiable {
			t.Errorf("%s: %s, want 416", huge, a.Status)
		}
	}
}

func TestQueryOfAListIsBounded(t *testing.T) {
	r := newRig(t, settings{})
	r.addImage("v1", ecrtest.Random(1, 100))
	wantStatus(t, r.get("/v2/"+app+"/tags/list?last="+strings.Repeat("x", 4000)), http.StatusOK)
	wantStatus(t, r.get("/v2/"+app+"/tags/list?last="+strings.Repeat("x", 4100)), http.StatusBadRequest)
	wantStatus(t, r.get("/v2/"+app+"/tags/list?n=99999999999999999999"), http.StatusBadRequest)
}
