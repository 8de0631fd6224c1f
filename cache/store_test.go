package cache

import (
	"context"
	"errors"
	"io"
	"os"
	"testing"

	"github.com/larder-registry/larder/cache/fill/filltest"
	"github.com/opencontainers/go-digest"
)

func TestBlobsSurviveARestart(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir, small)
	o := filltest.New(3<<20, 1)
	pull(t, s, o)
	settle(t, s)
	closeStore(t, s)
	s = openStore(t, dir, small)
	if state := pull(t, s, o); state != Hit {
		t.Errorf("got %s", state)
	}
	if size, err := s.Stat(o.Digest); err != nil || size != 3<<20 {
		t.Errorf("stat: %d, %v", size, err)
	}
}

func TestHitIsAFile(t *testing.T) {
	s := openStore(t, t.TempDir(), small)
	o := filltest.New(1000, 1)
	pull(t, s, o)
	settle(t, s)
	blob := open(t, s, o)
	defer blob.Close()
	if _, ok := blob.ReadSeeker.(*os.File); !ok || blob.Size != 1000 {
		t.Errorf("a hit is a %T of %d bytes", blob.ReadSeeker, blob.Size)
	}
}

func TestSha512BlobsAreKeptToo(t *testing.T) {
	s := openStore(t, t.TempDir(), small)
	o := filltest.New(1<<20, 1)
	o.Digest = digest.SHA512.FromBytes(o.Content)
	pull(t, s, o)
	settle(t, s)
	if state := pull(t, s, o); state != Hit {
		t.Errorf("got %s", state)
	}
}

func TestInvalidDigestChangesNothing(t *testing.T) {
	s := openStore(t, t.TempDir(), small)
	o := filltest.New(10, 1)
	for _, dgst := range []digest.Digest{"", "sha256:", "sha256:../../../../etc/passwd", "md5:d41d8cd98f00b204e9800998ecf8427e"} {
		if _, err := s.Open(t.Context(), dgst, Source{Fetch: o.Fetch}); err == nil {
			t.Errorf("blob %q was opened", dgst)
		}
		if _, err := s.Stat(dgst); err == nil {
			t.Errorf("blob %q has a size", dgst)
		}
		if _, _, err := s.Manifest(t.Context(), team, dgst, dead); err == nil || errors.Is(err, filltest.ErrBroken) {
			t.Errorf("manifest %q: %v", dgst, err)
		}
		if _, err := s.Holds(t.Context(), team, dgst, nil); err == nil {
			t.Errorf("a repository contains %q", dgst)
		}
	}
	if n := len(o.Requests()); n > 0 {
		t.Errorf("%d requests", n)
	}
}

func TestCloseEndsReadersAndFills(t *testing.T) {
	s := openStore(t, t.TempDir(), small)
	o := filltest.New(3<<20, 1)
	o.Plan = func(int, Range) filltest.Act { return filltest.Act{Stall: 1000} }
	blob := open(t, s, o)
	defer blob.Close()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, blob); !errors.Is(err, context.Canceled) {
		t.Errorf("read: %v", err)
	}
	if _, err := s.Open(t.Context(), o.Digest, Source{Fetch: o.Fetch}); !errors.Is(err, ErrClosed) {
		t.Errorf("open: %v", err)
	}
	if _, _, err := s.Tag(t.Context(), team, "v1", dead); !errors.Is(err, ErrClosed) {
		t.Errorf("tag: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Errorf("close again: %v", err)
	}
}

func TestFillsBeyondTheLimitWait(t *testing.T) {
	s := openStore(t, t.TempDir(), Options{fills: 1})
	first, second := filltest.New(1000, 1), filltest.New(1000, 2)
	release := make(chan struct{})
	first.Plan = func(int, Range) filltest.Act { return filltest.Act{Gate: func(int64) { <-release }} }
	blob := open(t, s, first)
	defer blob.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Open(ctx, second.Digest, Source{Fetch: second.Fetch}); !errors.Is(err, context.Canceled) {
		t.Errorf("a client that does not wait: %v", err)
	}
	if n := len(second.Requests()); n > 0 {
		t.Errorf("%d requests beyond the bound", n)
	}
	close(release)
	pull(t, s, second)
	pull(t, s, first)
}
