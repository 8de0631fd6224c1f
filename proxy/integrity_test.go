package proxy_test

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/larder-registry/larder/upstream/ecrtest"
)

// One bit is wrong when the blob is fetched for the first time. The storage holds most of
// the blob back until the client has its headers.
func TestWrongBitCutsTheBody(t *testing.T) {
	for _, test := range []struct {
		name      string
		size, bit int64
	}{
		{"in a small blob", 1000, 500},
		{"at the end", 100_000, 99_999},
		{"in the middle of segments", 1 << 20, 1 << 19},
	} {
		t.Run(test.name, func(t *testing.T) {
			log := new(logs)
			r := newRig(t, settings{log: log, cache: inSegments})
			content := bytesOf(t, ecrtest.Random(1, test.size))
			desc := r.addBlob(app, ecrtest.Bytes(content))
			path := blobPath(app, desc.Digest)

			wantCut(t, r.openWrong(path, test.bit), test.size)
			r.meter.wait("larder.fills", 1)
			if got := r.meter.count("larder.fill.mismatches"); got != 1 {
				t.Errorf("%d mismatches are counted, want 1", got)
			}
			if _, err := r.store.Stat(desc.Digest); err == nil {
				t.Error("the blob is in the store")
			}
			next := r.get(path)
			wantStatus(t, next, http.StatusOK)
			wantBody(t, next, content)
			wantHeader(t, next, "X-Cache", "MISS")
			if n := strings.Count(log.String(), "does not match its digest; it was dropped"); n != 1 {
				t.Errorf("the log has the mismatch %d times, want once:\n%s", n, log)
			}
		})
	}
}

// openWrong requests a blob, of which one bit is wrong this time, and returns when it has
// the headers.
func (r *rig) openWrong(path string, bit int64, header ...string) *http.Response {
	r.t.Helper()
	fills := r.meter.count("larder.fills")
	flip := r.ecr.Inject(ecrtest.Fault{On: ecrtest.Storage, FlipBit: &bit, Skip: 1})
	stall := r.ecr.Inject(ecrtest.Fault{On: ecrtest.Storage, FlipBit: &bit, StallAfter: new(int64(100)), Times: 1})
	resp := r.open(http.MethodGet, path, header...)
	stall()
	r.meter.wait("larder.fills", fills+1)
	flip()
	return resp
}

// wantCut checks that a body ends early, as clients notice it.
func wantCut(t *testing.T, resp *http.Response, size int64) {
	t.Helper()
	a := read(resp)
	if a.StatusCode >= 300 || !errors.Is(a.err, io.ErrUnexpectedEOF) || int64(len(a.body)) >= size {
		t.Errorf("%s, %d bytes of %d, then %v: the body must be cut short", a.Status, len(a.body), size, a.err)
	}
}

// If the mismatch is found before the headers are sent, the response is an error.
func TestWrongSmallBlobIsNeverServedWhole(t *testing.T) {
	r := newRig(t, settings{})
	r.ecr.Inject(ecrtest.Fault{On: ecrtest.Storage, FlipBit: new(int64(0))})
	for i := range 20 {
		a := r.get(blobPath(app, r.addBlob(app, ecrtest.Random(uint64(i), 1)).Digest))
		if a.StatusCode != http.StatusNotFound && (len(a.body) > 0 || !errors.Is(a.err, io.ErrUnexpectedEOF)) {
			t.Errorf("%s, %d bytes, then %v", a.Status, len(a.body), a.err)
		}
	}
}

// A client that asks only for the end of a blob does not get the last byte either.
func TestWrongBitCutsARangeAtTheEnd(t *testing.T) {
	r := newRig(t, settings{cache: inSegments})
	desc := r.addBlob(app, ecrtest.Random(1, 1<<20))
	wantCut(t, r.openWrong(blobPath(app, desc.Digest), 10, "Range", "bytes=-500"), 500)
}

func TestWrongBitInManifestIsNotServed(t *testing.T) {
	r := newRig(t, settings{})
	image := r.addImage("v1", ecrtest.Random(1, 1000))
	path := manifestPath(app, image.Root.Digest.String())
	remove := r.ecr.Inject(ecrtest.Fault{On: ecrtest.Manifest, FlipBit: new(int64(20))})
	wantError(t, r.get(path), http.StatusServiceUnavailable, "UNAVAILABLE")
	if _, err := r.store.Stat(image.Root.Digest); err == nil {
		t.Error("the manifest is in the store")
	}
	remove()
	a := r.get(path)
	wantStatus(t, a, http.StatusOK)
	wantHeader(t, a, "X-Cache", "MISS")
}
