package bucket_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/larder-registry/larder/upstream"
	"github.com/larder-registry/larder/upstream/bucket"
	"github.com/larder-registry/larder/upstream/bucket/buckettest"
)

func TestBlobComesFromTheBucketByRanges(t *testing.T) {
	store := buckettest.Start(t)
	n := start(t, store, readOnly)
	text := content(1, 300_000)
	d := n.add(text)
	store.Put(blobName(d), text)
	part, err := n.source.OpenBlob(t.Context(), repository, d, upstream.Range{Off: 1000, Len: 500, Size: int64(len(text))})
	if err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 500)
	if _, err := part.Body.Read(got); err != nil && err.Error() != "EOF" {
		t.Fatal(err)
	}
	part.Body.Close()
	if part.Size != int64(len(text)) || part.Whole || !slices.Equal(got, text[1000:1500]) {
		t.Errorf("the part is of %d bytes, whole: %t", part.Size, part.Whole)
	}
	if asked := n.questions(); len(asked) > 0 {
		t.Errorf("the upstream was asked %v", asked)
	}
}

// Whatever a bucket does, the blob comes whole, and a bucket that fails is left alone.
func TestNoTroubleOfTheBucketReachesAClient(t *testing.T) {
	for name, c := range map[string]struct {
		fault buckettest.Fault
		hold  bool
		most  int // requests for content until the bucket is left alone
	}{
		"throttles":           {fault: buckettest.Fault{Status: http.StatusServiceUnavailable, Code: "SlowDown"}, most: 3},
		"breaks":              {fault: buckettest.Fault{Status: http.StatusInternalServerError, Code: "InternalError"}, most: 3},
		"denies":              {fault: buckettest.Fault{Status: http.StatusForbidden, Code: "AccessDenied"}, most: 3},
		"is gone":             {fault: buckettest.Fault{Status: http.StatusNotFound, Code: "NoSuchBucket"}, most: 3},
		"is another region's": {fault: buckettest.Fault{Status: http.StatusMovedPermanently, Code: "PermanentRedirect"}, most: 3},
		"does not answer":     {hold: true, most: 1},
		"falls silent":        {fault: buckettest.Fault{Stall: 1000}, most: 1},
		"breaks off":          {fault: buckettest.Fault{Cut: 1000}, most: 3},
	} {
		t.Run(name, func(t *testing.T) {
			store := buckettest.Start(t)
			n := start(t, store, func(o *bucket.Options) {
				o.Write = false
				if c.hold || c.fault.Stall > 0 {
					o.Patience = 50 * time.Millisecond
				}
			})
			fault := c.fault
			if c.hold {
				forever := make(chan struct{})
				t.Cleanup(func() { close(forever) })
				fault.Hold = forever
			}
			store.Fail(func(buckettest.Request) buckettest.Fault { return fault })
			for i := range byte(8) {
				text := content(i, 50_000)
				d := n.add(text)
				store.Put(blobName(d), text)
				if err := n.fill(t.Context(), d, int64(len(text))); err != nil {
					t.Errorf("blob %d: %v", i, err)
				}
			}
			if asked := len(store.Requests(http.MethodGet)); asked > c.most {
				t.Errorf("the bucket was asked %d times, want %d at most", asked, c.most)
			}
			if n.Status().Reading == "" {
				t.Error("the status says nothing")
			}
			if !strings.Contains(n.log.String(), "the bucket fails") {
				t.Errorf("the log says nothing:\n%s", n.log)
			}
		})
	}
}

func TestWhatTheBucketDoesNotHaveIsNoTrouble(t *testing.T) {
	store := buckettest.Start(t)
	n := start(t, store, readOnly)
	for i := range byte(10) {
		if err := n.fill(t.Context(), n.add(content(i, 100)), 100); err != nil {
			t.Error(err)
		}
	}
	if status := n.Status(); status.Reading != "" || len(store.Requests(http.MethodGet)) != 10 {
		t.Errorf("after %d questions the status is %+v", len(store.Requests(http.MethodGet)), status)
	}
}

func TestWrongObjectIsNotAskedForAgain(t *testing.T) {
	text := content(1, 5000)
	for name, wrong := range map[string][]byte{
		"other bytes": content(2, 5000), "truncated": text[:4000], "longer": content(1, 6000), "empty": {},
	} {
		t.Run(name, func(t *testing.T) {
			store := buckettest.Start(t)
			n := start(t, store, readOnly)
			d := n.add(text)
			store.Put(blobName(d), wrong)
			err := n.fill(t.Context(), d, int64(len(text)))
			if isSame := len(wrong) == len(text); (err != nil) != isSame { // nobody can tell before the last byte
				t.Errorf("the first fill ends with %v", err)
			}
			if err := n.fill(t.Context(), d, int64(len(text))); err != nil {
				t.Errorf("the next fill ends with %v", err)
			}
			if asked := len(store.Requests(http.MethodGet)); asked != 1 {
				t.Errorf("the bucket was asked %d times", asked)
			}
			if n.Status().Wrong != 1 || !strings.Contains(n.log.String(), blobName(d)) {
				t.Errorf("%d are counted as wrong; the log:\n%s", n.Status().Wrong, n.log)
			}
		})
	}
}

func TestWrongManifestComesFromTheUpstream(t *testing.T) {
	store := buckettest.Start(t)
	n := start(t, store, readOnly)
	text := []byte(`{"schemaVersion": 2}`)
	d := n.add(text)
	store.Put(blobName(d), []byte(`{"schemaVersion": 3}`))
	for range 2 {
		desc, raw, err := n.source.Manifest(t.Context(), repository, d.String(), false)
		if err != nil || desc.Digest != d || string(raw) != string(text) {
			t.Errorf("got %v, %q, %v", desc, raw, err)
		}
	}
	if asked := len(store.Requests(http.MethodGet)); asked != 1 || n.Status().Wrong != 1 {
		t.Errorf("the bucket was asked %d times: %+v", asked, n.Status())
	}
}

// Nobody gets from the bucket what a repository is not known to have.
func TestBucketGivesNothingThatARepositoryIsNotKnownToHave(t *testing.T) {
	store := buckettest.Start(t)
	n := start(t, store, readOnly)
	n.knows = false
	text := content(1, 100)
	d := n.add(text)
	store.Put(blobName(d), text)
	n.dead = errDead
	if _, err := n.source.OpenBlob(t.Context(), repository, d, upstream.Range{Len: 100}); err == nil {
		t.Error("the blob was given")
	}
	if _, _, err := n.source.Manifest(t.Context(), repository, d.String(), false); err == nil {
		t.Error("the manifest was given")
	}
	if asked := store.Requests(""); len(asked) > 0 {
		t.Errorf("without a key the bucket was asked for %v", asked)
	}
}
