package proxy_test

import (
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/larder-registry/larder/cache"
	"github.com/larder-registry/larder/upstream/ecrtest"
)

// The storage fails in the middle of a layer of eight segments. No bytes are on their way
// then, so none are fetched twice.
func TestClientsDoNotNoticeBrokenStorage(t *testing.T) {
	t.Parallel()
	const size = 4 << 20
	retry := cache.Retry{Pause: time.Millisecond, MaxPause: 10 * time.Millisecond}
	for name, fault := range map[string]func(*rig) ecrtest.Fault{
		"cut":         func(*rig) ecrtest.Fault { return ecrtest.Fault{Times: 5, CutAfter: new(int64(300_000))} },
		"cut at once": func(*rig) ecrtest.Fault { return ecrtest.Fault{Times: 3, Skip: 1, CutAfter: new(int64(0))} },
		"refused":     func(*rig) ecrtest.Fault { return ecrtest.Fault{Times: 3, Skip: 1, Refuse: true} },
		"stalled":     func(*rig) ecrtest.Fault { return ecrtest.Fault{Times: 3, StallAfter: new(int64(300_000))} },
		"503": func(*rig) ecrtest.Fault {
			return ecrtest.Fault{Times: 4, Skip: 1, Status: http.StatusServiceUnavailable}
		},
		"500 first":   func(*rig) ecrtest.Fault { return ecrtest.Fault{Times: 1, Status: http.StatusInternalServerError} },
		"URL expired": func(r *rig) ecrtest.Fault { return ecrtest.Fault{Times: 1, Skip: 4, Notify: r.ecr.ExpireURLs} },
		"no Range":    func(*rig) ecrtest.Fault { return ecrtest.Fault{NoRange: true} },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			set := settings{cache: cache.Options{Segment: 512 << 10, Retry: retry}}
			if name == "stalled" {
				set.cache.Retry.Stall = 100 * time.Millisecond
			}
			r := newRig(t, set)
			content := bytesOf(t, ecrtest.Random(1, size))
			desc := r.addBlob(app, ecrtest.Bytes(content))
			f := fault(r)
			f.On = ecrtest.Storage
			defer r.ecr.Inject(f)()

			a := r.get(blobPath(app, desc.Digest))
			wantStatus(t, a, http.StatusOK)
			wantBody(t, a, content)
			r.meter.wait("larder.fills", 1)
			if got := r.ecr.Stats().Blobs[desc.Digest].Bytes; got != size && name != "no Range" {
				t.Errorf("%d bytes were fetched of a blob of %d", got, size)
			}
		})
	}
}

// The storage continues only after the client has left.
func TestFillSurvivesClientHangup(t *testing.T) {
	r := newRig(t, settings{cache: inSegments})
	desc := r.addBlob(app, ecrtest.Random(1, 1<<20))
	release := r.ecr.Inject(ecrtest.Fault{On: ecrtest.Storage, StallAfter: new(int64(100_000))})
	r.open(http.MethodGet, blobPath(app, desc.Digest)).Body.Close()
	release()
	r.meter.wait("larder.fills", 1)
	a := r.get(blobPath(app, desc.Digest))
	wantHeader(t, a, "X-Cache", "HIT")
	if got := r.ecr.Stats().Blobs[desc.Digest].Bytes; got != desc.Size {
		t.Errorf("%d bytes were fetched of a blob of %d", got, desc.Size)
	}
}

// The blob is larger than the buffers of the client's socket, which does not read.
func TestFillDoesNotWaitForSlowClient(t *testing.T) {
	t.Parallel()
	r := newRig(t, settings{cache: inSegments})
	content := bytesOf(t, ecrtest.Random(1, 16<<20))
	desc := r.addBlob(app, ecrtest.Bytes(content))
	slow := r.open(http.MethodGet, blobPath(app, desc.Digest))
	r.meter.wait("larder.fills", 1)
	fast := r.get(blobPath(app, desc.Digest))
	wantHeader(t, fast, "X-Cache", "HIT")
	wantBody(t, fast, content)
	wantBody(t, read(slow), content)
}

// If the disk takes no files, blobs are passed through without being cached.
func TestBlobIsPassedThroughWithoutDisk(t *testing.T) {
	r := newRig(t, settings{})
	content := bytesOf(t, ecrtest.Random(1, 1<<20))
	desc := r.addBlob(app, ecrtest.Bytes(content))
	path, partial := blobPath(app, desc.Digest), filepath.Join(r.dir, "partial", "sha256-"+desc.Digest.Encoded())
	if err := os.MkdirAll(filepath.Join(partial, "folder"), 0o750); err != nil { // which is not replaced
		t.Fatal(err)
	}
	whole, part := r.get(path), r.get(path, "Range", "bytes=-500")
	for _, a := range []answer{whole, part} {
		wantHeader(t, a, "X-Cache", "BYPASS")
	}
	wantBody(t, whole, content)
	wantStatus(t, part, http.StatusPartialContent)
	wantBody(t, part, content[1<<20-500:])

	fix := r.ecr.Inject(ecrtest.Fault{On: ecrtest.Storage, FlipBit: new(int64(10))})
	wantCut(t, r.open(http.MethodGet, path), 1<<20)
	part = r.get(path, "Range", "bytes=-500") // which cannot be verified
	wantStatus(t, part, http.StatusPartialContent)
	wantBody(t, part, content[1<<20-500:])
	fix()
	if traffic := r.proxy.Traffic(); traffic.Passed < 1<<20 || traffic.Passed > traffic.Served {
		t.Errorf("traffic: %+v", traffic)
	}
	if got := r.store.Activity().Fetched; got != 0 {
		t.Errorf("%d bytes fetched into the cache", got)
	}

	if err := os.RemoveAll(partial); err != nil {
		t.Fatal(err)
	}
	miss := r.get(path)
	wantHeader(t, miss, "X-Cache", "MISS")
	wantBody(t, miss, content)
	wantSameHeaders(t, whole, miss)
}
