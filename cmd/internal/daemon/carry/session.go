package carry

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io/fs"
	"net/http"
	"sync"
	"time"
)

// Progress is a line of the answer that a session sends before its result.
type Progress struct {
	Done  int64 `json:"done"`  // bytes
	Total int64 `json:"total"` // bytes; it may grow
}

// lines is an answer of lines of JSON.
type lines struct {
	w    http.ResponseWriter
	sent time.Time // the latest progress
}

func newLines(w http.ResponseWriter) *lines {
	w.Header().Set("Content-Type", "application/x-ndjson")
	return &lines{w: w}
}

// send sends a line. When the client has left, the context of the request ends.
func (l *lines) send(v any) {
	_ = json.NewEncoder(l.w).Encode(v)
	_ = http.NewResponseController(l.w).Flush()
}

// progressEvery is the time between two lines of progress.
const progressEvery = 200 * time.Millisecond

// progress sends the progress, unless it did so a moment ago.
func (l *lines) progress(done, total int64) {
	if time.Since(l.sent) >= progressEvery {
		l.sent = time.Now()
		l.send(struct {
			Progress Progress `json:"progress"`
		}{Progress{done, total}})
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
