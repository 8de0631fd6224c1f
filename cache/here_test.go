package cache

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/larder-registry/larder/cache/fill/filltest"
	"github.com/opencontainers/go-digest"
)

// own fetches a blob, and has the repository hold it.
func own(t *testing.T, s *Store, repo Repository, o *filltest.Origin) {
	t.Helper()
	pull(t, s, o)
	settle(s)
	_, err := s.Holds(t.Context(), repo, o.Digest, func(context.Context) (int64, error) { return int64(len(o.Content)), nil })
	if err != nil {
		t.Fatal(err)
	}
}

func TestBlobHereIsOfTheRepositoryAlone(t *testing.T) {
	s := openStore(t, t.TempDir(), small)
	repo, other := Repository{Upstream: "registry.test", Name: "app"}, Repository{Upstream: "registry.test", Name: "other"}
	for _, size := range []int{100, memoryBlobMax, memoryBlobMax + 1} {
		o := filltest.New(size, uint64(size))
		if s.BlobHere(repo, o.Digest) != nil {
			t.Errorf("%d bytes were here before they came", size)
		}
		own(t, s, repo, o)
		if s.BlobHere(other, o.Digest) != nil {
			t.Errorf("%d bytes were another repository's too", size)
		}
		for _, again := range []bool{false, true} {
			blob := s.BlobHere(repo, o.Digest)
			if blob == nil {
				t.Fatalf("%d bytes are not here", size)
			}
			got, err := io.ReadAll(blob)
			if err != nil || !bytes.Equal(got, o.Content) || blob.Size != int64(size) || blob.State != Hit {
				t.Errorf("%d bytes, again %t: %d came, of %d, %s, %v", size, again, len(got), blob.Size, blob.State, err)
			}
			if _, isFile := blob.ReadSeekCloser.(*os.File); isFile != (blob.Content == nil) || isFile != (size > memoryBlobMax) {
				t.Errorf("%d bytes, again %t: from a file %t, in memory %t", size, again, isFile, blob.Content != nil)
			}
			if err := blob.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}

func TestBlobInMemoryGoesWithItsFile(t *testing.T) {
	s := openStore(t, t.TempDir(), small)
	repo := Repository{Upstream: "registry.test", Name: "app"}
	o := filltest.New(100, 1)
	own(t, s, repo, o)
	if blob := s.BlobHere(repo, o.Digest); blob == nil || blob.Content == nil {
		t.Fatal("it is not in memory")
	}
	if err := evictNow(s, 1); err != nil {
		t.Fatal(err)
	}
	if s.BlobHere(repo, o.Digest) != nil {
		t.Error("it is here without its file")
	}
}

// One who has opened the file of a small blob may come too late.
func TestEvictedBlobDoesNotStayInMemory(t *testing.T) {
	s := openStore(t, t.TempDir(), small)
	repo := Repository{Upstream: "registry.test", Name: "app"}
	o := filltest.New(100, 1)
	own(t, s, repo, o)
	file, err := os.Open(s.folder.Blob(o.Digest))
	if err != nil {
		t.Fatal(err)
	}
	if err := evictNow(s, 1); err != nil {
		t.Fatal(err)
	}
	if blob := s.takeIntoMemory(o.Digest, file, 100); blob == nil || !bytes.Equal(blob.Content, o.Content) {
		t.Errorf("got %+v", blob)
	}
	if s.BlobHere(repo, o.Digest) != nil {
		t.Error("it is here without its file")
	}
}

// A small blob that the disk has changed is fetched again.
func TestDamageIsNotTakenIntoMemory(t *testing.T) {
	s := openStore(t, t.TempDir(), small)
	repo := Repository{Upstream: "registry.test", Name: "app"}
	o := filltest.New(100, 1)
	own(t, s, repo, o)
	if err := os.WriteFile(s.folder.Blob(o.Digest), make([]byte, 100), 0o600); err != nil {
		t.Fatal(err)
	}
	if blob := s.BlobHere(repo, o.Digest); blob != nil {
		t.Fatalf("got %+v", blob)
	}
	pull(t, s, o)
	settle(s)
	if blob := s.BlobHere(repo, o.Digest); blob == nil || !bytes.Equal(blob.Content, o.Content) {
		t.Errorf("then %+v", blob)
	}
}

func TestCheckDigestAgreesWithTheLibrary(t *testing.T) {
	hex := strings.Repeat("0123456789abcdef", 4)
	for _, d := range []digest.Digest{
		digest.Digest("sha256:" + hex), digest.Digest("sha512:" + hex + hex), digest.Digest("sha256:" + hex + "0"),
		digest.Digest("sha256:" + hex[1:] + "G"), digest.Digest("sha256:" + strings.ToUpper(hex)), digest.Digest("sha257:" + hex),
		"", "sha256:", digest.Digest(hex), digest.Digest("sha256:" + hex[2:] + "/."),
	} {
		if got, want := CheckDigest(d), d.Validate(); !errors.Is(got, want) {
			t.Errorf("%q: %v, want %v", d, got, want)
		}
	}
}
