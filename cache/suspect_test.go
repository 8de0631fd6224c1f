package cache

import (
	"os"
	"testing"
	"testing/synctest"

	"github.com/larder-registry/larder/cache/fill/filltest"
)

func TestSuspectBlobIsRemovedIfItIsDamaged(t *testing.T) {
	s := openStore(t, t.TempDir(), small)
	origins := stock(t, s, 2, 100_000)
	damaged, right := origins[0], origins[1]
	flip(t, s, damaged.Digest, 70_000)
	for _, o := range origins {
		s.blobs.Distrust(o.Digest)
	}
	s.blobs.Distrust(filltest.New(10, 9).Digest) // this blob is not in the store
	eventually(t, "both blobs are checked", func() bool {
		_, gone := os.Lstat(s.folder.Blob(damaged.Digest))
		_, err := s.Stat(right.Digest)
		return gone != nil && err == nil
	})
	if state := pull(t, s, damaged); state != Miss {
		t.Errorf("the damaged blob: %s", state)
	}
	if state := pull(t, s, right); state != Hit {
		t.Errorf("the other one: %s", state)
	}
}

// The repository still has the blob after a restart, when no upstream may be there to say so.
func TestDamagedBlobThatWasFetchedAgainStaysInItsRepository(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir, small)
	repo := Repository{Upstream: "registry.test", Name: "app"}
	o := filltest.New(100_000, 1)
	addToRepository(t, s, repo, o)
	flip(t, s, o.Digest, 70_000)
	s.blobs.Distrust(o.Digest)
	eventually(t, "the damaged blob is removed", func() bool {
		_, err := os.Lstat(s.folder.Blob(o.Digest))
		return err != nil
	})
	if state := pull(t, s, o); state != Miss {
		t.Errorf("the damaged blob: %s", state)
	}
	settle(t, s)
	closeStore(t, s)
	s = openStore(t, dir, small)
	loaded(t, s)
	blob := s.BlobHere(repo, o.Digest)
	if blob == nil {
		t.Fatal("the repository does not have the blob any more")
	}
	blob.Close()
}

// A damaged blob that is pinned is to be fetched again. What is pinned is known only when
// the folder is loaded.
func TestDamagedBlobsStayUntilTheFolderIsLoaded(t *testing.T) {
	dir := t.TempDir()
	first := openStore(t, dir, small)
	origins := stock(t, first, 2, 100_000)
	for _, o := range origins {
		flip(t, first, o.Digest, 70_000)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		s := openIdle(t, dir, small)
		s.blobs.Distrust(origins[0].Digest)
		done := make(chan struct{})
		go func() {
			defer close(done)
			if got, err := s.Scrub(t.Context(), nil); err != nil || got.Blobs > 0 {
				t.Errorf("scrub: %+v, %v", got, err)
			}
		}()
		synctest.Wait()
		for _, o := range origins {
			if _, err := os.Lstat(s.folder.Blob(o.Digest)); err != nil {
				t.Errorf("a damaged blob was removed before the folder was loaded: %v", err)
			}
		}
		if err := s.blobs.Load(t.Context(), func() {}); err != nil {
			t.Error(err)
		}
		receive(t, done, "the scrub is over")
		synctest.Wait()
		if n := s.items.Len(); n != 0 {
			t.Errorf("%d damaged blobs were not removed", n)
		}
	})
}
