package upstream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/upstream/ecrtest"
	"github.com/larder-registry/larder/upstream/reply"
)

func TestRangeOfABlobIsRead(t *testing.T) {
	const size = 10_000
	data := ecrtest.Random(1, size)
	server := startECR(t, ecrtest.Options{})
	dgst := addBlob(t, server, data)
	for _, test := range []struct{ off, n, want int64 }{
		{0, 1, 1},
		{0, size, size},
		{0, size + 1, size},
		{500, 1000, 1000},
		{size - 1, 1, 1},
		{size - 10, 1000, 10},
		{1, 1 << 40, size - 1},
	} {
		part, err := server.OpenBlob(t.Context(), repo, dgst, Range{Off: test.off, Len: test.n})
		if err != nil {
			t.Fatal(err)
		}
		if part.Size != size || part.Whole {
			t.Errorf("%d bytes at %d: size %d, whole %t; want %d, false", test.n, test.off, part.Size, part.Whole, size)
		}
		want := make([]byte, test.want)
		if _, err := data.ReadAt(want, test.off); err != nil {
			t.Fatal(err)
		}
		if readAll(t, part.Body) != string(want) {
			t.Errorf("%d bytes at %d are not the blob's", test.n, test.off)
		}
	}
}

func TestUpstreamThatIgnoresRangeSendsTheWhole(t *testing.T) {
	server := startECR(t, ecrtest.Options{})
	dgst := addBlob(t, server, ecrtest.Random(1, 1000))
	server.Inject(ecrtest.Fault{On: ecrtest.Storage, NoRange: true})
	part, err := server.OpenBlob(t.Context(), repo, dgst, Range{Off: 500, Len: 100})
	if err != nil || part.Size != 1000 || !part.Whole {
		t.Fatalf("size %d, whole %t, %v; want 1000, true", part.Size, part.Whole, err)
	}
	if n := len(readAll(t, part.Body)); n != 1000 {
		t.Errorf("%d bytes came, want 1000", n)
	}
}

func TestUpstreamMayLeaveOutTheSize(t *testing.T) {
	r, _ := startPlain(t, Config{}, func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "con")
		_ = http.NewResponseController(w).Flush() // chunked from here on
		_, _ = io.WriteString(w, "tent")
	})
	part, err := r.OpenBlob(t.Context(), repo, someBlob, Range{Len: 100})
	if err != nil || part.Size != -1 || !part.Whole {
		t.Fatalf("size %d, whole %t, %v; want -1, true", part.Size, part.Whole, err)
	}
	if got := readAll(t, part.Body); got != "content" {
		t.Errorf("got %q", got)
	}
}

func TestEmptyBlobHasNoBytes(t *testing.T) {
	for _, noRange := range []bool{false, true} {
		server := startECR(t, ecrtest.Options{})
		dgst := addBlob(t, server, ecrtest.Bytes(nil))
		server.Inject(ecrtest.Fault{On: ecrtest.Storage, NoRange: noRange})
		part, err := server.OpenBlob(t.Context(), repo, dgst, Range{Len: 1})
		if err != nil || part.Size != 0 || part.Whole != noRange {
			t.Fatalf("size %d, whole %t, %v; want 0, %t", part.Size, part.Whole, err, noRange)
		}
		if got := readAll(t, part.Body); got != "" {
			t.Errorf("got %q", got)
		}
	}
}

// The blob is smaller than the one that was asked for, and is so the next time too.
func TestOffsetBehindTheEndIsFinal(t *testing.T) {
	server := startECR(t, ecrtest.Options{})
	dgst := addBlob(t, server, ecrtest.Random(1, 1000))
	_, err := server.OpenBlob(t.Context(), repo, dgst, Range{Off: 1000, Len: 1})
	if !errors.As(err, new(*reply.ContentError)) || !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "1000 bytes") {
		t.Errorf("got %v", err)
	}
}

func TestBlobSizeAsksTheRegistryAndNotItsStorage(t *testing.T) {
	server := startECR(t, ecrtest.Options{})
	dgst := addBlob(t, server, ecrtest.Random(1, 1000))
	size, err := server.BlobSize(t.Context(), repo, dgst)
	if err != nil || size != -1 {
		t.Errorf("size %d, %v; want -1", size, err)
	}
	want := map[ecrtest.Op]int{ecrtest.API: 1, ecrtest.Blob: 1}
	if diff := cmp.Diff(want, server.Stats().Requests); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
	_, err = server.BlobSize(t.Context(), repo, digest.FromString("another"))
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing blob: %v, want %v", err, fs.ErrNotExist)
	}
}

func TestBlobSizeIsThatOfTheRegistrysAnswer(t *testing.T) {
	for name, test := range map[string]struct {
		answer http.HandlerFunc
		size   int64
	}{
		"range":    {content, 7},
		"no range": {func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "content") }, 7},
		"empty": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Range", "bytes */0")
			w.WriteHeader(http.StatusRequestedRangeNotSatisfiable)
		}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			r, _ := startPlain(t, Config{}, test.answer)
			size, err := r.BlobSize(t.Context(), repo, someBlob)
			if err != nil || size != test.size {
				t.Errorf("size %d, %v; want %d", size, err, test.size)
			}
		})
	}
}

func TestAnswerWithAnotherRangeIsAnError(t *testing.T) {
	for _, contentRange := range []string{
		"", "bytes", "bytes 0-6/7", "bytes 4-6/7", "bytes 4-6/*", "bytes 3-6/", "bytes */7", "bytes 3-6/6", "bytes 6-3/7",
		"bytes -6/7", "bytes 3-/7", "bytes=3-6/7", "octets 3-6/7", "bytes 3-6/99999999999999999999",
	} {
		r, _ := startPlain(t, Config{}, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Range", contentRange)
			w.WriteHeader(http.StatusPartialContent)
			_, _ = io.WriteString(w, "tent")
		})
		part, err := r.OpenBlob(t.Context(), repo, someBlob, Range{Off: 3, Len: 4})
		if err == nil {
			part.Body.Close()
			t.Errorf("%q counts as an answer from offset 3 on", contentRange)
		}
		wantAllSlots(t, r)
	}
}

func TestContentRangeMayLeaveOutTheSize(t *testing.T) {
	r, _ := startPlain(t, Config{}, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Range", "bytes 3-6/*")
		w.WriteHeader(http.StatusPartialContent)
		_, _ = io.WriteString(w, "tent")
	})
	part, err := r.OpenBlob(t.Context(), repo, someBlob, Range{Off: 3, Len: 4})
	if err != nil || part.Size != -1 || part.Whole {
		t.Fatalf("size %d, whole %t, %v; want -1 and a part", part.Size, part.Whole, err)
	}
	if got := readAll(t, part.Body); got != "tent" {
		t.Errorf("got %q", got)
	}
}

// contentRanges are forms of the header, and what they say where they are good.
var contentRanges = map[string]struct {
	first, size int64
	ok          bool
}{
	"bytes 500-999/1234": {500, 1234, true},
	"bytes 0-0/1":        {0, 1, true},
	"bytes 0-9223372036854775806/9223372036854775807": {0, 1<<63 - 1, true},
	"bytes 0-9223372036854775807/9223372036854775807": {},
	"bytes 500-999/*":  {500, -1, true},
	"bytes 5-4/*":      {},
	"bytes */*":        {},
	"bytes 0-4/**":     {},
	"bytes */1234":     {},
	"bytes 0-0/0":      {},
	"bytes 0-1/1":      {},
	"bytes 5-4/10":     {},
	"bytes -1-4/10":    {},
	"bytes 1--4/10":    {},
	"bytes 0-4/-10":    {},
	"bytes 0x1-0x2/10": {},
	"bytes  0-4/10":    {},
	"bytes 0-4 /10":    {},
	"Bytes 0-4/10":     {},
	"":                 {},
}

func TestContentRangeIsRead(t *testing.T) {
	for header, want := range contentRanges {
		first, size, ok := parseContentRange(header)
		if ok != want.ok || ok && (first != want.first || size != want.size) {
			t.Errorf("%q: %d of %d, %t; want %+v", header, first, size, ok, want)
		}
	}
}

func FuzzParseContentRange(f *testing.F) {
	for header := range contentRanges {
		f.Add(header)
	}
	f.Fuzz(func(t *testing.T, header string) {
		first, size, ok := parseContentRange(header)
		if !ok {
			return
		}
		if first < 0 || first >= size && size != -1 {
			t.Errorf("%q: offset %d of %d bytes", header, first, size)
		}
		if size == -1 {
			return
		}
		last := size - 1
		again, sizeAgain, ok := parseContentRange(fmt.Sprintf("bytes %d-%d/%d", first, last, size))
		if !ok || again != first || sizeAgain != size {
			t.Errorf("%q: %d of %d does not survive being written", header, first, size)
		}
	})
}

// wantAllSlots checks that every slot for a body is free.
func wantAllSlots(t *testing.T, r *Registry) {
	t.Helper()
	if !r.slots.usual.TryAcquire(maxBodies) {
		t.Error("a slot was not released")
	} else {
		r.slots.usual.Release(maxBodies)
	}
	if !r.slots.spare.TryAcquire(maxSpareBodies) {
		t.Error("a spare slot was not released")
	} else {
		r.slots.spare.Release(maxSpareBodies)
	}
}

func TestSpareBodyFailsInsteadOfWaiting(t *testing.T) {
	r, _ := startPlain(t, Config{}, content)
	var open []io.Closer
	for range maxSpareBodies {
		part, err := r.OpenBlob(t.Context(), repo, someBlob, Range{Len: 1, Spare: true})
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, part.Body)
	}
	if _, err := r.OpenBlob(t.Context(), repo, someBlob, Range{Len: 1, Spare: true}); err == nil {
		t.Errorf("spare connection %d was made", maxSpareBodies+1)
	}
	if err := pull(t, r, repo); err != nil {
		t.Errorf("spare ones hold up the others: %v", err)
	}
	for _, body := range open {
		for range 2 { // a second Close changes nothing
			_ = body.Close()
		}
	}
	wantAllSlots(t, r)
	if part, err := r.OpenBlob(t.Context(), repo, someBlob, Range{Len: 1, Spare: true}); err != nil {
		t.Error(err)
	} else {
		readAll(t, part.Body)
	}
}

func TestSlotIsReleasedAfterAnError(t *testing.T) {
	server := startECR(t, ecrtest.Options{})
	dgst := addBlob(t, server, ecrtest.Random(1, 1000))
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	for name, fault := range map[string]ecrtest.Fault{
		"no answer from the registry":  {On: ecrtest.Blob, Refuse: true},
		"refused by the registry":      {On: ecrtest.Blob, Status: http.StatusForbidden},
		"no answer from the storage":   {On: ecrtest.Storage, Refuse: true},
		"the storage is busy":          {On: ecrtest.Storage, Status: http.StatusServiceUnavailable},
		"no URL":                       {On: ecrtest.Blob, Header: http.Header{"Location": {"http://x/%zz"}}},
		"a place that is not allowed":  {On: ecrtest.Blob, Header: http.Header{"Location": {"http://169.254.169.254/"}}},
		"an answer for another offset": {On: ecrtest.Storage, Header: http.Header{"Content-Range": {"bytes 1-2/3"}}},
	} {
		for _, spare := range []bool{false, true} {
			server.members.primary().blobs.locations = newLocations() // so that the registry is asked
			remove := server.Inject(fault)
			if _, err := server.OpenBlob(t.Context(), repo, dgst, Range{Len: 1000, Spare: spare}); err == nil {
				t.Errorf("%s: no error", name)
			}
			wantAllSlots(t, server.Registry)
			remove()
		}
	}
	if _, err := server.OpenBlob(canceled, repo, dgst, Range{Len: 1000}); !errors.Is(err, context.Canceled) {
		t.Errorf("with a context that has ended: %v", err)
	}
	wantAllSlots(t, server.Registry)
}

func TestWaitForASlotEndsWithTheContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _ := newTestClient(t, Config{Host: "registry.test"})
		r := registryOf(t, c, "registry.test")
		if !r.slots.usual.TryAcquire(maxBodies) {
			t.Fatal("a new registry is busy")
		}
		gone := errors.New("the client hung up")
		ctx, cancel := context.WithCancelCause(t.Context())
		ended := make(chan error, 1)
		go func() {
			_, err := r.OpenBlob(ctx, repo, someBlob, Range{Len: 1})
			ended <- err
		}()
		synctest.Wait()
		cancel(gone)
		if err := <-ended; !errors.Is(err, gone) || !strings.Contains(err.Error(), "registry.test") {
			t.Errorf("got %v, want %v and the name of the upstream", err, gone)
		}
		r.slots.usual.Release(maxBodies)
		wantAllSlots(t, r)
	})
}

func TestStorageFailureIsNotRetriedHere(t *testing.T) {
	server := startECR(t, ecrtest.Options{})
	dgst := addBlob(t, server, ecrtest.Random(1, 1000))
	server.Inject(ecrtest.Fault{On: ecrtest.Storage, Status: http.StatusServiceUnavailable, Body: "<Error><Code>ServiceUnavailable</Code></Error>"})
	_, err := server.OpenBlob(t.Context(), repo, dgst, Range{Len: 1000})
	var refusal *reply.Error
	if !errors.As(err, &refusal) || refusal.Status != http.StatusServiceUnavailable {
		t.Errorf("got %v, want status 503", err)
	}
	if got := server.Stats().Blobs[dgst].Requests; got != 1 {
		t.Errorf("storage was asked %d times, want once: the fill resumes", got)
	}
}
