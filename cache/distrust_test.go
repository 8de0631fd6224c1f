package cache

import (
	"errors"
	"fmt"
	"os"
	"testing"
	"testing/synctest"

	"github.com/larder-registry/larder/cache/fill/filltest"
	"golang.org/x/sys/unix"
)

func TestDistrustedBlobIsRemovedIfItIsDamaged(t *testing.T) {
	s := openStore(t, t.TempDir(), small)
	origins := stock(t, s, 2, 100_000)
	damaged, right := origins[0], origins[1]
	flip(t, s, damaged.Digest, 70_000)
	for _, o := range origins {
		s.Distrust(o.Digest)
	}
	s.Distrust(filltest.New(10, 9).Digest) // which is not here
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

// A terminal whose other side has not unlocked it is what opening fails for with
// EIO.
func TestBlobThatCannotBeOpenedIsFetchedAgain(t *testing.T) {
	s := openStore(t, t.TempDir(), small)
	o := stock(t, s, 1, 100_000)[0]
	terminals, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("there are no terminals: %v", err)
	}
	defer terminals.Close()
	n, err := unix.IoctlGetInt(int(terminals.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	locked := fmt.Sprintf("/dev/pts/%d", n)
	if _, err := os.Open(locked); !errors.Is(err, unix.EIO) {
		t.Skipf("a terminal that is locked can be opened: %v", err)
	}
	path := s.folder.Blob(o.Digest)
	if err := errors.Join(os.Remove(path), os.Symlink(locked, path)); err != nil {
		t.Fatal(err)
	}
	if state := pull(t, s, o); state != Miss {
		t.Errorf("pulled: %s", state)
	}
	settle(s)
	eventually(t, "the blob is checked", func() bool { _, err := s.Stat(o.Digest); return err == nil })
	if state := pull(t, s, o); state != Hit {
		t.Errorf("pulled again: %s", state)
	}
}

// Before the folder is loaded it is not known what is pinned, and is to be fetched again.
func TestNoBlobIsFoundDamagedBeforeTheFolderIsLoaded(t *testing.T) {
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
		s.Distrust(origins[0].Digest)
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
		<-done
		synctest.Wait()
		if n := s.items.Len(); n != 0 {
			t.Errorf("%d damaged blobs are left", n)
		}
	})
}
