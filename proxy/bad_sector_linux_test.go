package proxy_test

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/larder-registry/larder/upstream/ecrtest"
)

func init() { copyFailures = append(copyFailures, unix.EUCLEAN) }

// badSector is a connection that gets only the first bytes of a file from the kernel.
// Then reading the disk fails with err.
type badSector struct {
	*httptest.ResponseRecorder
	left int64
	err  error
}

func (w *badSector) ReadFrom(src io.Reader) (int64, error) {
	n, err := io.Copy(w.ResponseRecorder, io.LimitReader(src, w.left))
	return n, errors.Join(err, w.err)
}

func TestBlobOnABadSectorIsCutAndFetchedAnew(t *testing.T) {
	for name, failure := range map[string]error{
		"input/output error":            unix.EIO,
		"medium error":                  unix.ENODATA,
		"stale handle of a network":     unix.ESTALE,
		"checksum of the file system":   unix.EBADMSG,
		"corruption in a file's blocks": unix.EUCLEAN,
	} {
		t.Run(name, func(t *testing.T) { testBadSector(t, failure) })
	}
}

func testBadSector(t *testing.T, failure error) {
	r := newRig(t, settings{})
	content := bytesOf(t, ecrtest.Random(1, 100_000))
	blob := r.addBlob(app, ecrtest.Bytes(content))
	path := blobPath(app, blob.Digest)
	r.cache(path)
	r.flip(blob.Digest)
	func() {
		defer func() {
			if aborted := recover(); aborted != http.ErrAbortHandler { //nolint:errorlint // net/http compares the panic value itself
				t.Errorf("the connection was not cut: %v", aborted)
			}
		}()
		w := &badSector{httptest.NewRecorder(), 50_000, failure}
		r.proxy.ServeHTTP(w, r.request(http.MethodGet, path))
		if got := w.Body.Bytes(); !bytes.HasPrefix(content, got) {
			t.Error("wrong bytes were sent")
		}
	}()
	fills := r.meter.count("larder.fills")
	r.meter.wait("larder.scrub.mismatches", 1)
	a := r.get(path)
	wantStatus(t, a, http.StatusOK)
	wantBody(t, a, content)
	r.meter.wait("larder.fills", fills+1)
	wantHeader(t, r.get(path), "X-Cache", "HIT")
}
