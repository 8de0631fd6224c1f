package cache

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"testing"
	"testing/synctest"

	"github.com/larder-registry/larder/cache/fill/filltest"
	"golang.org/x/sys/unix"
)

// distrusts reports whether a blob is yet to be looked at.
func distrusts(s *Store) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.damaged) > 0
}

func TestDistrustedBlobIsRemovedIfItIsDamaged(t *testing.T) {
	s := openStore(t, t.TempDir(), small)
	origins := stock(t, s, 2, 100_000)
	damaged, right := origins[0], origins[1]
	flip(t, s, damaged.Digest, 70_000)
	for _, o := range origins {
		s.Distrust(o.Digest)
	}
	s.Distrust(filltest.New(10, 9).Digest) // which is not here
	for distrusts(s) {
		runtime.Gosched()
	}
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
	for distrusts(s) {
		runtime.Gosched()
	}
	if state := pull(t, s, o); state != Hit {
		t.Errorf("pulled again: %s", state)
	}
}

// Before it is over nobody knows what is pinned, and is to be fetched again.
func TestNothingIsFoundDamagedBeforeTheScanIsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, t.TempDir(), small)
		<-s.scanned
		origins := stock(t, s, 2, 100_000)
		for _, o := range origins {
			flip(t, s, o.Digest, 70_000)
		}
		s.scanned = make(chan struct{}) // as if it went on
		s.Distrust(origins[0].Digest)
		done := make(chan struct{})
		go func() {
			defer close(done)
			if got, err := s.Scrub(t.Context(), nil); err != nil || got.Blobs > 0 {
				t.Errorf("scrub: %+v, %v", got, err)
			}
		}()
		synctest.Wait()
		if n := s.recency.Len(); n != 2 {
			t.Errorf("%d of 2 damaged blobs are left", n)
		}
		close(s.scanned)
		<-done
		synctest.Wait()
		if n := s.recency.Len(); n != 0 {
			t.Errorf("%d damaged blobs are left", n)
		}
	})
}
