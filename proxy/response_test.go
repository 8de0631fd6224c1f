package proxy_test

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/larder-registry/larder/cache"
	"github.com/larder-registry/larder/upstream/ecrtest"
)

// connection is a ResponseWriter like that of net/http: its ReadFrom makes the kernel copy
// if the source is a bounded file.
type connection struct {
	*httptest.ResponseRecorder
	files int
}

func (c *connection) ReadFrom(src io.Reader) (int64, error) {
	if limited, ok := src.(*io.LimitedReader); ok {
		if _, ok := limited.R.(*os.File); ok {
			c.files++
		}
	}
	return io.Copy(c.ResponseRecorder, src)
}

// Otherwise sendfile is not used, and no other test would notice.
func TestHitReachesTheConnectionAsFile(t *testing.T) {
	r := newRig(t, settings{})
	path := blobPath(app, r.addBlob(app, ecrtest.Random(1, 100_000)).Digest)
	r.cache(path)
	for _, header := range []string{"", "bytes=100-199", "bytes=-1"} {
		conn := &connection{ResponseRecorder: httptest.NewRecorder()}
		req := httptest.NewRequest(http.MethodGet, path, nil)
		if header != "" {
			req.Header.Set("Range", header)
		}
		r.server.Config.Handler.ServeHTTP(conn, req)
		if conn.files != 1 || conn.Header().Get("X-Cache") != "HIT" {
			t.Errorf("Range %q: %d, X-Cache %s, %d files reached the connection, want 1",
				header, conn.Code, conn.Header().Get("X-Cache"), conn.files)
		}
	}
}

// The same holds for a blob that is still being fetched.
func TestFillReachesTheConnectionAsFile(t *testing.T) {
	const size = 3 << 20
	tests := []struct {
		header   string
		from, to int64
	}{
		{"", 0, size},
		{"bytes=1000000-2999999", 1_000_000, 3_000_000},
		{"bytes=-5", size - 5, size},
	}
	for i, test := range tests {
		t.Run(test.header, func(t *testing.T) {
			r := newRig(t, settings{})
			content := ecrtest.Random(uint64(i), size)
			req := httptest.NewRequest(http.MethodGet, blobPath(app, r.addBlob(app, content).Digest), nil)
			if test.header != "" {
				req.Header.Set("Range", test.header)
			}
			conn := &connection{ResponseRecorder: httptest.NewRecorder()}
			r.server.Config.Handler.ServeHTTP(conn, req)
			want, err := io.ReadAll(io.NewSectionReader(content, test.from, test.to-test.from))
			if err != nil {
				t.Fatal(err)
			}
			if conn.files == 0 || conn.Header().Get("X-Cache") != "MISS" {
				t.Errorf("%d, X-Cache %s, %d files reached the connection", conn.Code, conn.Header().Get("X-Cache"), conn.files)
			}
			if !bytes.Equal(conn.Body.Bytes(), want) {
				t.Errorf("%d bytes that are not the %d wanted", conn.Body.Len(), len(want))
			}
		})
	}
}

// badFile is a connection to which the kernel copies only half of a file, and then fails
// with err, if any.
type badFile struct {
	*httptest.ResponseRecorder
	err error
}

func (c *badFile) ReadFrom(src io.Reader) (int64, error) {
	limited, ok := src.(*io.LimitedReader)
	if !ok {
		return io.Copy(c.ResponseRecorder, src)
	}
	if _, ok := limited.R.(*os.File); !ok {
		return io.Copy(c.ResponseRecorder, src)
	}
	n, err := io.CopyN(c.ResponseRecorder, limited.R, limited.N/2)
	return n, errors.Join(err, c.err)
}

// copyFailures are errors of the disk that sending a file may end with. On Linux there are more of them.
var copyFailures = []error{nil, unix.EIO, unix.ESTALE}

func TestFillIsSentIfTheKernelCannotCopyIt(t *testing.T) {
	for i, failure := range copyFailures {
		r := newRig(t, settings{})
		content := bytesOf(t, ecrtest.Random(uint64(i), 3<<20))
		path := blobPath(app, r.addBlob(app, ecrtest.Bytes(content)).Digest)
		conn := &badFile{httptest.NewRecorder(), failure}
		r.server.Config.Handler.ServeHTTP(conn, httptest.NewRequest(http.MethodGet, path, nil))
		if conn.Header().Get("X-Cache") != "MISS" || !bytes.Equal(conn.Body.Bytes(), content) {
			t.Errorf("%v: X-Cache %s, %d bytes that are not the %d wanted", failure, conn.Header().Get("X-Cache"), conn.Body.Len(), len(content))
		}
	}
}

// discard is a ResponseWriter that allocates nothing.
type discard struct{ header http.Header }

func (d discard) Header() http.Header         { return d.header }
func (d discard) Write(p []byte) (int, error) { return len(p), nil }
func (d discard) WriteHeader(int)             {}

// allocsOfHit returns how often the handler allocates for a hit.
func (r *rig) allocsOfHit(w http.ResponseWriter, req *http.Request) float64 {
	r.t.Helper()
	n := testing.AllocsPerRun(100, func() {
		clear(w.Header())
		r.server.Config.Handler.ServeHTTP(w, req)
	})
	if state := w.Header().Get("X-Cache"); state != "HIT" {
		r.t.Fatalf("%s %s: X-Cache: %q", req.Method, req.URL.Path, state)
	}
	return n
}

// hotManifestAllocs bounds the allocations for a hot manifest. Measured: 12.
const hotManifestAllocs = 16

func TestHotManifestAllocatesLittle(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates too")
	}
	r := newRig(t, settings{cache: cache.Options{Tags: cache.Freshness{TTL: time.Hour}}})
	r.addImage("v1", ecrtest.Random(1, 1000))
	wantStatus(t, r.get(manifestPath(app, "v1")), http.StatusOK)
	for _, method := range []string{http.MethodHead, http.MethodGet} {
		req := httptest.NewRequest(method, manifestPath(app, "v1"), nil)
		if got := r.allocsOfHit(discard{make(http.Header)}, req); got > hotManifestAllocs {
			t.Errorf("%s: %v allocations, want %d at most", method, got, hotManifestAllocs)
		}
	}
}

// hotBlobAllocs bounds the allocations for a cached blob by its size: a small one comes
// from memory, a large one from a file, which is opened. Measured: 12 and 16.
var hotBlobAllocs = map[int64]float64{4096: 16, 100_000: 20}

func TestBlobHitAllocatesLittle(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates too")
	}
	r := newRig(t, settings{})
	for size, most := range hotBlobAllocs {
		path := blobPath(app, r.addBlob(app, ecrtest.Random(1, size)).Digest)
		r.cache(path)
		req := httptest.NewRequest(http.MethodGet, path, nil)
		if got := r.allocsOfHit(sink{discard{make(http.Header)}}, req); got > most {
			t.Errorf("%d bytes: %v allocations, want %v at most", size, got, most)
		}
	}
}

// sink is a discard that takes files as a connection does, without a buffer.
type sink struct{ discard }

func (sink) ReadFrom(src io.Reader) (int64, error) {
	if limited, ok := src.(*io.LimitedReader); ok {
		return limited.N, nil
	}
	return 0, errors.New("not a bounded file")
}
