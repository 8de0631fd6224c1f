package bucket_test

import (
	"bytes"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/upstream"
	"github.com/larder-registry/larder/upstream/bucket"
	"github.com/larder-registry/larder/upstream/bucket/buckettest"
)

// pull has a node fetch a blob from its upstream, and waits until all that comes of it is put.
func (n *node) pull(t *testing.T, text []byte) (d digest.Digest) {
	t.Helper()
	d = n.add(text)
	if err := n.fill(t.Context(), d, int64(len(text))); err != nil {
		t.Fatal(err)
	}
	n.settle(t)
	return d
}

func TestWhatTheUpstreamSentIsPutOnce(t *testing.T) {
	store := buckettest.Start(t)
	first, second := start(t, store, nil), start(t, store, nil)
	text := content(1, 40_000)
	d := first.pull(t, text)
	if got := store.Objects()[blobName(d)]; !bytes.Equal(got, text) {
		t.Fatalf("the object has %d bytes; there are %v", len(got), names(store.Objects()))
	}
	second.pull(t, text) // comes from the bucket
	second.mu.Lock()
	second.knows = false // so this comes from the upstream
	second.mu.Unlock()
	second.pull(t, text)
	first.keep(d, text)
	first.settle(t)
	if sent := puts(store, "blobs")[blobName(d)]; sent != 1 {
		t.Errorf("the object was sent %d times", sent)
	}
}

// An image that is in use on a node that fills the bucket is put there though the node has had it for long.
func TestImageInUseIsPutBack(t *testing.T) {
	store := buckettest.Start(t)
	n := start(t, store, nil)
	image, layer := []byte("{}"), content(1, 1000)
	n.tags["v1"] = n.add(image)
	n.mu.Lock()
	n.cache[digest.FromBytes(image)], n.cache[digest.FromBytes(layer)] = image, layer
	n.mu.Unlock()
	for range 2 {
		if _, _, err := n.source.Manifest(t.Context(), repository, "v1", true); err != nil {
			t.Fatal(err)
		}
		n.settle(t)
	}
	if sent := puts(store, "blobs"); len(sent) != 2 || sent[blobName(digest.FromBytes(layer))] != 1 {
		t.Errorf("%v were sent", sent)
	}
	if heads := store.Requests(http.MethodHead); len(heads) != 2 {
		t.Errorf("the bucket was asked %d times what it has", len(heads))
	}
}

func TestReaderPutsNothing(t *testing.T) {
	store := buckettest.Start(t)
	n := start(t, store, readOnly)
	key(t, n, 1)
	n.pull(t, content(1, 1000))
	n.tags["v1"] = n.add([]byte("{}"))
	if _, _, err := n.source.Manifest(t.Context(), repository, "v1", false); err != nil {
		t.Fatal(err)
	}
	n.settle(t)
	if sent := store.Requests(http.MethodPut); len(sent) > 0 {
		t.Errorf("%v were put", sent)
	}
}

// A conditional put that another one was faster than is done; one that meets another on its way is tried once more.
func TestPutThatIsTooLateIsDone(t *testing.T) {
	text := content(1, 1000)
	for name, c := range map[string]struct {
		status, sent int
		there        bool
	}{
		"another was faster":    {status: http.StatusPreconditionFailed, sent: 1},
		"another is on its way": {status: http.StatusConflict, sent: 2},
		"it was there before":   {there: true},
	} {
		t.Run(name, func(t *testing.T) {
			store := buckettest.Start(t)
			n := start(t, store, nil)
			n.settle(t)
			d := digest.FromBytes(text)
			if c.there {
				store.Put(blobName(d), text)
				n.knows = false // so it is fetched from the upstream
			}
			var failed atomic.Bool
			store.Fail(func(r buckettest.Request) buckettest.Fault {
				if c.status != 0 && r.Method == http.MethodPut && r.Name == blobName(d) && !failed.Swap(true) {
					return buckettest.Fault{Status: c.status, Code: "Conditional"}
				}
				return buckettest.Fault{}
			})
			n.pull(t, text)
			if sent := puts(store, "blobs")[blobName(d)]; sent != c.sent || n.Status().Writing != "" {
				t.Errorf("it was sent %d times, want %d: %+v", sent, c.sent, n.Status())
			}
			for _, r := range store.Requests(http.MethodPut) {
				if r.Name == blobName(d) && r.Header.Get("If-None-Match") != "*" {
					t.Error("it was sent without a condition")
				}
			}
		})
	}
}

func TestLargeObjectIsPutInPartsWithTheConditionAtItsEnd(t *testing.T) {
	store := buckettest.Start(t)
	n := start(t, store, nil)
	text := bytes.Repeat(content(3, 1<<20), 70)
	d := n.pull(t, text)
	if got := store.Objects()[blobName(d)]; !bytes.Equal(got, text) {
		t.Fatalf("the object has %d bytes of %d", len(got), len(text))
	}
	parts, ends := 0, 0
	for _, r := range store.Requests("") {
		switch {
		case r.Method == http.MethodPut && r.Query.Has("partNumber"):
			parts++
		case r.Method == http.MethodPost && r.Query.Has("uploadId"):
			ends++
			if r.Header.Get("If-None-Match") != "*" {
				t.Error("the upload ends without a condition")
			}
		}
	}
	if parts != 3 || ends != 1 || store.Uploads() != 0 {
		t.Errorf("%d parts, %d ends, %d uploads are left", parts, ends, store.Uploads())
	}
}

func TestUploadInPartsThatFailsIsAborted(t *testing.T) {
	store := buckettest.Start(t)
	n := start(t, store, nil)
	n.settle(t)
	store.Fail(func(r buckettest.Request) buckettest.Fault {
		if r.Query.Get("partNumber") == "2" {
			return buckettest.Fault{Status: http.StatusForbidden, Code: "AccessDenied"}
		}
		return buckettest.Fault{}
	})
	text := bytes.Repeat(content(3, 1<<20), 70)
	d := n.add(text)
	if err := n.fill(t.Context(), d, int64(len(text))); err != nil {
		t.Fatal(err)
	}
	n.await(t, func(s bucket.Status) bool { return s.Writing != "" })
	n.stop()
	if store.Uploads() != 0 {
		t.Errorf("%d uploads are left", store.Uploads())
	}
}

func TestStoreThatIgnoresConditionsIsFoundOut(t *testing.T) {
	store := buckettest.Start(t)
	store.Fail(func(buckettest.Request) buckettest.Fault { return buckettest.Fault{Unconditional: true} })
	n := start(t, store, nil)
	d := n.pull(t, content(1, 1000))
	if !strings.Contains(n.log.String(), "ignores If-None-Match") {
		t.Errorf("the log says nothing:\n%s", n.log)
	}
	if puts(store, "blobs")[blobName(d)] != 1 {
		t.Error("the blob was not put once")
	}
	if honest := start(t, buckettest.Start(t), nil); strings.Contains(honest.log.String(), "ignores") {
		t.Error("a store that heeds conditions is blamed")
	}
}

// A bucket that takes nothing says so, and is read all the same.
func TestBucketThatMayNotBeWrittenIsReadAllTheSame(t *testing.T) {
	store := buckettest.Start(t)
	store.Fail(func(r buckettest.Request) buckettest.Fault {
		if r.Method == http.MethodPut {
			return buckettest.Fault{Status: http.StatusForbidden, Code: "AccessDenied"}
		}
		return buckettest.Fault{}
	})
	n := start(t, store, nil)
	text := content(1, 1000)
	d := n.add(text)
	if err := n.fill(t.Context(), d, 1000); err != nil {
		t.Fatal(err)
	}
	n.await(t, func(s bucket.Status) bool { return strings.Contains(s.Writing, "access denied") })
	other := content(2, 1000)
	store.Put(blobName(n.add(other)), other)
	if err := n.fill(t.Context(), digest.FromBytes(other), 1000); err != nil {
		t.Error(err)
	}
	if asked := n.questions(); len(asked) != 1 || n.Status().Reading != "" {
		t.Errorf("the upstream was asked %v: %+v", asked, n.Status())
	}
}

// What is not verified is not put, and neither is what left the cache before its turn came.
func TestOnlyVerifiedContentIsPut(t *testing.T) {
	store := buckettest.Start(t)
	n := start(t, store, nil)
	n.settle(t)
	text := content(1, 1000)
	d := digest.FromBytes(text)
	n.have[d] = content(2, 1000)
	if err := n.fill(t.Context(), d, 1000); err == nil {
		t.Fatal("wrong bytes were taken")
	}
	n.Filled(d) // by somebody else's bytes
	n.settle(t)
	gone := n.add(content(3, 1000))
	part, err := n.source.OpenBlob(t.Context(), repository, gone, upstream.Range{Len: 1000})
	if err != nil {
		t.Fatal(err)
	}
	part.Body.Close()
	n.Filled(gone) // and evicted at once
	n.settle(t)
	if got := puts(store, "blobs"); len(got) > 0 {
		t.Errorf("%v were put", got)
	}
}
