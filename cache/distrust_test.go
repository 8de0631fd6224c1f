package cache

import (
	"runtime"
	"testing"
	"testing/synctest"
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
	flip(t, s, damaged.digest, 70_000)
	for _, o := range origins {
		s.Distrust(o.digest)
	}
	s.Distrust(newOrigin(10, 9).digest) // which is not here
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

// Before it is over nobody knows what is pinned, and is to be fetched again.
func TestNothingIsFoundDamagedBeforeTheScanIsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, t.TempDir(), small)
		<-s.scanned
		origins := stock(t, s, 2, 100_000)
		for _, o := range origins {
			flip(t, s, o.digest, 70_000)
		}
		s.scanned = make(chan struct{}) // as if it went on
		s.Distrust(origins[0].digest)
		done := make(chan struct{})
		go func() {
			defer close(done)
			if got, err := s.Scrub(t.Context(), nil); err != nil || got.Blobs > 0 {
				t.Errorf("scrub: %+v, %v", got, err)
			}
		}()
		synctest.Wait()
		if n := s.recency.len(); n != 2 {
			t.Errorf("%d of 2 damaged blobs are left", n)
		}
		close(s.scanned)
		<-done
		synctest.Wait()
		if n := s.recency.len(); n != 0 {
			t.Errorf("%d damaged blobs are left", n)
		}
	})
}
