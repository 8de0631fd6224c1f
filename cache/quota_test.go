package cache

import (
	"sync"
	"testing"

	"github.com/larder-registry/larder/cache/disk"
	"github.com/larder-registry/larder/cache/fill/filltest"
	"golang.org/x/sys/unix"
)

// quota is a disk on which at most this many bytes can be preallocated.
type quota struct {
	most int64

	mu    sync.Mutex // guards what follows
	sizes map[string]int64
}

func (q *quota) around(s disk.Step, take func() error) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	var used int64
	for _, n := range q.sizes {
		used += n
	}
	if s.Op == disk.OpPreallocate && used+s.Size > q.most {
		return unix.EDQUOT
	}
	err := take()
	switch {
	case err != nil:
	case s.Op == disk.OpPreallocate:
		q.sizes[s.Path] = s.Size
	case s.Op == disk.OpRename:
		q.sizes[s.To] = q.sizes[s.Path]
		delete(q.sizes, s.Path)
	case s.Op == disk.OpRemove:
		delete(q.sizes, s.Path)
	}
	return err
}

func TestCacheStaysBelowAQuota(t *testing.T) {
	var log logBuffer
	q := &quota{most: disk.BallastSize + disk.BlobReserve + 40<<20, sizes: make(map[string]int64)}
	opts := Options{MaxSize: 1 << 30, LowWater: 1, Log: log.log()}
	opts.steps.Around = q.around
	s := openStore(t, t.TempDir(), opts)
	for i := range 20 {
		o := filltest.New(8<<20, uint64(i))
		if state := pull(t, s, o); state != Miss {
			t.Errorf("blob %d: %s", i, state)
		}
		settle(t, s)
		if state := pull(t, s, o); state != Hit {
			t.Errorf("blob %d again: %s", i, state)
		}
	}
	if err := s.Degraded(); err != nil {
		t.Errorf("degraded: %v", err)
	}
	if n := log.lines("level=WARN"); n != 1 || log.lines("a quota does not let") != 1 || log.lines("level=ERROR") > 0 {
		t.Errorf("it was logged %d times:\n%s", n, &log.text)
	}
	if used := s.items.Bytes(); used > 40<<20 {
		t.Errorf("%d bytes are left for the index", q.most-disk.BallastSize-used)
	}
	checkCharges(t, s)
}
