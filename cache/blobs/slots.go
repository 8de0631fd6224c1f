package blobs

import (
	"context"
	"slices"
	"sync"

	"github.com/larder-registry/larder/cache/fill"
)

// slots bound the fills that run at once: all of them, and those of one upstream, so that no
// upstream can take all. Fills wait in the order in which they came; one whose upstream has
// too many is passed over.
type slots struct {
	most, each int // in all, and of one upstream

	mu      sync.Mutex // guards what follows
	used    map[string]int
	total   int
	waiting []*ticket
}

// ticket is a fill's place in the queue.
type ticket struct {
	upstreams []string // of its clients; slots.mu guards it, and upstream
	upstream  string   // whose slot it has
	granted   chan struct{}
}

// queued is a fill with its place in the queue for a slot.
type queued struct {
	*fill.Fill
	ticket *ticket
}

// newSlots returns slots for most fills, of which a quarter may be of one upstream: with 256
// that is 64, as many requests for blobs as are sent to an upstream at a time.
func newSlots(most int) *slots {
	return &slots{most: most, each: max(1, most/4), used: make(map[string]int)}
}

// enqueue takes a place in the queue. It returns at once.
func (s *slots) enqueue(upstream string) *ticket {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := &ticket{upstreams: []string{upstream}, granted: make(chan struct{})}
	s.waiting = append(s.waiting, t)
	s.grantLocked()
	return t
}

// share lets a fill that waits use a slot of another upstream too.
func (s *slots) share(t *ticket, upstream string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t.isGranted() || slices.Contains(t.upstreams, upstream) {
		return
	}
	t.upstreams = append(t.upstreams, upstream)
	s.grantLocked()
}

// wait returns when the ticket has a slot, or with the context's error.
func (s *slots) wait(ctx context.Context, t *ticket) error {
	select {
	case <-t.granted:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// release gives the slot or the place in the queue up.
func (s *slots) release(t *ticket) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !t.isGranted() {
		s.waiting = slices.DeleteFunc(s.waiting, func(w *ticket) bool { return w == t })
		return
	}
	s.total--
	if s.used[t.upstream]--; s.used[t.upstream] == 0 {
		delete(s.used, t.upstream)
	}
	s.grantLocked()
}

// grantLocked gives free slots to those that wait.
func (s *slots) grantLocked() {
	s.waiting = slices.DeleteFunc(s.waiting, func(t *ticket) bool {
		i := slices.IndexFunc(t.upstreams, func(u string) bool { return s.used[u] < s.each })
		if i < 0 || s.total == s.most {
			return false
		}
		t.upstream = t.upstreams[i]
		s.used[t.upstream]++
		s.total++
		close(t.granted)
		return true
	})
}

func (t *ticket) isGranted() bool {
	select {
	case <-t.granted:
		return true
	default:
		return false
	}
}
