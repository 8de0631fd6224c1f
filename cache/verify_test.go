package cache

import (
	"context"
	"errors"
	"io"
	"testing"

	"github.com/larder-registry/larder/cache/fill/filltest"
)

// content reads a blob to its end, from wherever it comes, and reports whether it is right.
func content(t *testing.T, s *Store, repo Repository, o *filltest.Origin) (state State, right bool) {
	t.Helper()
	blob := s.BlobHere(repo, o.Digest)
	if blob == nil {
		blob = open(t, s, o)
	}
	defer blob.Close()
	raw, err := io.ReadAll(blob)
	if err != nil {
		t.Fatal(err)
	}
	settle(t, s)
	return blob.State, string(raw) == string(o.Content)
}

func TestBitThatFlippedIsServedAsTheSettingSays(t *testing.T) {
	repo := Repository{Upstream: "registry.test", Name: "app"}
	for _, c := range []struct {
		name              string
		verify            VerifyOnRead
		restarted, served bool // the file right after a start, and after it was served
	}{
		{"never", VerifyNever, true, true},
		{"first", VerifyFirst, false, true},
		{"always", VerifyAlways, false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			opts := small
			opts.VerifyOnRead = c.verify
			s := openStore(t, dir, opts)
			o := filltest.New(300_000, 1)
			addToRepository(t, s, repo, o)
			flip(t, s, o.Digest, 70_000)
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			s = openStore(t, dir, opts)
			<-s.blobs.Loaded()
			if state, right := content(t, s, repo, o); right == c.restarted || (state == Hit) != c.restarted {
				t.Errorf("after a start: %s, right: %t", state, right)
			}
			if c.verify == VerifyNever {
				flip(t, s, o.Digest, 70_000) // it is right again
			}
			if state, right := content(t, s, repo, o); state != Hit || !right {
				t.Errorf("the right content: %s, right: %t", state, right)
			}
			flip(t, s, o.Digest, 70_000)
			if state, right := content(t, s, repo, o); right == c.served || (state == Hit) != c.served {
				t.Errorf("after it was served: %s, right: %t", state, right)
			}
			if c.served {
				flip(t, s, o.Digest, 70_000) // so that the folder is in order
			}
		})
	}
}

func TestVerificationOutlivesTheClientThatCausedIt(t *testing.T) {
	dir := t.TempDir()
	opts := small
	opts.VerifyOnRead = VerifyFirst
	repo := Repository{Upstream: "registry.test", Name: "app"}
	s := openStore(t, dir, opts)
	o := filltest.New(300_000, 1)
	addToRepository(t, s, repo, o)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openStore(t, dir, opts)
	gone := errors.New("gone")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(gone)
	blob, err := s.Open(ctx, o.Digest, Source{Fetch: o.Fetch})
	switch {
	case err == nil: // it was fast
		blob.Close()
	case !errors.Is(err, gone):
		t.Errorf("opened: %v", err)
	}
	eventually(t, "the blob is verified", func() bool {
		blob := s.BlobHere(repo, o.Digest)
		if blob != nil {
			blob.Close()
		}
		return blob != nil
	})
}

func TestBlobThatAScrubHasVerifiedIsNotHashedAgain(t *testing.T) {
	dir := t.TempDir()
	opts := small
	opts.VerifyOnRead = VerifyFirst
	repo := Repository{Upstream: "registry.test", Name: "app"}
	s := openStore(t, dir, opts)
	o := filltest.New(300_000, 1)
	addToRepository(t, s, repo, o)
	closeStore(t, s)
	s = openStore(t, dir, opts)
	loaded(t, s)
	if blob := s.BlobHere(repo, o.Digest); blob != nil {
		t.Fatal("the blob was served before it was hashed")
	}
	scrubbed(t, s, 1, 0)
	blob := s.BlobHere(repo, o.Digest)
	if blob == nil {
		t.Fatal("the blob has to be hashed again")
	}
	blob.Close()
}

// BenchmarkFirstUse opens and reads a layer of 256 MiB that the kernel has in memory: what
// each setting costs the first client after a start.
func BenchmarkFirstUse(b *testing.B) {
	for name, verify := range map[string]VerifyOnRead{"never": VerifyNever, "always": VerifyAlways} {
		b.Run(name, func(b *testing.B) {
			opts := Options{VerifyOnRead: verify}
			s := openStore(b, b.TempDir(), opts)
			o := filltest.New(256<<20, 1)
			pull(b, s, o)
			settle(b, s)
			b.SetBytes(int64(len(o.Content)))
			for b.Loop() {
				blob := open(b, s, o) // its first byte can be sent now
				if err := blob.Close(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
