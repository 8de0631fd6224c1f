package cache

import (
	"runtime"
	"testing"
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
