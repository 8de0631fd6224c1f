package carry

import (
	"crypto/rand"
	"fmt"
	"io/fs"
	"net/http"
	"sync"

	"github.com/larder-registry/larder/proxy/admin/answer"
)

// Progress is a line of the answer that a session sends before its result.
type Progress struct {
	Done  int64 `json:"done"`  // bytes
	Total int64 `json:"total"` // bytes; it may grow
}

// progressTo returns a function that sends the progress, unless a line was sent a moment ago.
func progressTo(lines *answer.Lines) func(done, total int64) {
	return func(done, total int64) {
		if lines.Due() {
			lines.Send(struct {
				Progress Progress `json:"progress"`
			}{Progress{done, total}})
		}
	}
}

// sessions are those of one kind that are open.
type sessions[T any] struct {
	mu   sync.Mutex // guards what follows
	open map[string]*opened[T]
}

// opened is a session, and the requests that use it.
type opened[T any] struct {
	session T
	users   sync.WaitGroup // grows under the lock, while the session is open
}

// add opens a session. remove ends it, once no request uses it any more.
func (s *sessions[T]) add(v T) (id string, remove func()) {
	id = rand.Text()
	o := &opened[T]{session: v}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open == nil {
		s.open = make(map[string]*opened[T])
	}
	s.open[id] = o
	return id, func() {
		s.mu.Lock()
		delete(s.open, id)
		s.mu.Unlock()
		o.users.Wait()
	}
}

// use returns the session of a request, which calls done at its end.
func (s *sessions[T]) use(r *http.Request) (v T, done func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o, ok := s.open[r.PathValue("id")]
	if !ok {
		return v, nil, fmt.Errorf("there is no such session: it has ended: %w", fs.ErrNotExist)
	}
	o.users.Add(1)
	return o.session, o.users.Done, nil
}
