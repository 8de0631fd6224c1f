package cache

import (
	"bytes"
	"context"
	"io"
	"os"
	"testing"

	"github.com/larder-registry/larder/cache/fill/filltest"
)

// addToRepository fetches a blob for a repository.
func addToRepository(t *testing.T, s *Store, repo Repository, o *filltest.Origin) {
	t.Helper()
	_, err := s.Holds(t.Context(), repo, o.Digest, func(context.Context) (int64, error) { return int64(len(o.Content)), nil })
	if err != nil {
		t.Fatal(err)
	}
	pullFor(t, s, repo, o)
	settle(t, s)
}

func TestBlobHereServesOnlyTheRepositoryOfTheBlob(t *testing.T) {
	s := openStore(t, t.TempDir(), small)
	repo, other := Repository{Upstream: "registry.test", Name: "app"}, Repository{Upstream: "registry.test", Name: "other"}
	for _, size := range []int{100, memoryBlobMax, memoryBlobMax + 1} {
		o := filltest.New(size, uint64(size))
		if s.BlobHere(repo, o.Digest) != nil {
			t.Errorf("a blob of %d bytes was found before it was fetched", size)
		}
		addToRepository(t, s, repo, o)
		if s.BlobHere(other, o.Digest) != nil {
			t.Errorf("a blob of %d bytes was served for another repository", size)
		}
		for _, again := range []bool{false, true} {
			blob := s.BlobHere(repo, o.Digest)
			if blob == nil {
				t.Fatalf("a blob of %d bytes was not found", size)
			}
			got, err := io.ReadAll(blob)
			if err != nil || !bytes.Equal(got, o.Content) || blob.Size != int64(size) || blob.State != Hit {
				t.Errorf("blob of %d bytes, again %t: read %d of %d, %s, %v", size, again, len(got), blob.Size, blob.State, err)
			}
			if _, isFile := blob.ReadSeeker.(*os.File); isFile != (blob.Content == nil) || isFile != (size > memoryBlobMax) {
				t.Errorf("blob of %d bytes, again %t: from a file: %t, in memory: %t", size, again, isFile, blob.Content != nil)
			}
			if err := blob.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}

func TestBlobInMemoryIsRemovedWithItsFile(t *testing.T) {
	s := openStore(t, t.TempDir(), small)
	repo := Repository{Upstream: "registry.test", Name: "app"}
	o := filltest.New(100, 1)
	addToRepository(t, s, repo, o)
	if blob := s.BlobHere(repo, o.Digest); blob == nil || blob.Content == nil {
		t.Fatal("the blob is not in memory")
	}
	if err := evictNow(s, 1); err != nil {
		t.Fatal(err)
	}
	if s.BlobHere(repo, o.Digest) != nil {
		t.Error("the blob is served without its file")
	}
}

// A request may open the file of a small blob before it is evicted and read it after that.
func TestEvictedBlobDoesNotStayInMemory(t *testing.T) {
	s := openStore(t, t.TempDir(), small)
	repo := Repository{Upstream: "registry.test", Name: "app"}
	o := filltest.New(100, 1)
	addToRepository(t, s, repo, o)
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
		t.Error("the blob is served without its file")
	}
}

func TestDamagedBlobIsNotKeptInMemory(t *testing.T) {
	s := openStore(t, t.TempDir(), small)
	repo := Repository{Upstream: "registry.test", Name: "app"}
	o := filltest.New(100, 1)
	addToRepository(t, s, repo, o)
	if err := os.WriteFile(s.folder.Blob(o.Digest), make([]byte, 100), 0o600); err != nil {
		t.Fatal(err)
	}
	if blob := s.BlobHere(repo, o.Digest); blob != nil {
		t.Fatalf("got %+v", blob)
	}
	pull(t, s, o)
	settle(t, s)
	if blob := s.BlobHere(repo, o.Digest); blob == nil || !bytes.Equal(blob.Content, o.Content) {
		t.Errorf("after it was fetched again: %+v", blob)
	}
}
