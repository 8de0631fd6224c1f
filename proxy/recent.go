package proxy

import (
	"net/http"
	"slices"
	"sync"
	"time"
)

const (
	recentRequests = 50 // the requests that Recent has, those that failed included
	recentFailures = 20 // the failed ones that it has
)

// Request is one that was answered. It has what the request's log line has.
type Request struct {
	At         time.Time     `json:"at"` // when it came
	Client     string        `json:"client"`
	Agent      string        `json:"agent"` // the beginning of its User-Agent
	Method     string        `json:"method"`
	Upstream   string        `json:"upstream"`
	Repository string        `json:"repository"` // the path of the request if it named none that is served
	Reference  string        `json:"reference"`
	Status     int           `json:"status"` // 0 if the client left before there was one
	Bytes      int64         `json:"bytes"`
	Took       time.Duration `json:"took"`  // in nanoseconds
	Cache      string        `json:"cache"` // its X-Cache
	// Error is why the request failed, cut to some 300 bytes. It is empty for any other.
	Error string `json:"error,omitempty"`
}

// Recent is what a proxy was asked for last, the latest first. Its lists are never nil.
type Recent struct {
	Requests []Request `json:"requests"`
	Failures []Request `json:"failures"` // requests of clients that were answered with an error, or not to their end
}

// recent keeps the last requests for content. It is safe for concurrent use.
type recent struct {
	mu       sync.Mutex // guards what follows
	requests ring
	failures ring
}

func newRecent() *recent {
	return &recent{requests: ring{slots: make([]slot, recentRequests)}, failures: ring{slots: make([]slot, recentFailures)}}
}

// ring has a fixed number of requests, and forgets the oldest.
type ring struct {
	slots []slot
	count int // of all that were ever put; the next one goes to count modulo len(slots)
}

// slot is a place of a ring. The agent is a copy in memory that is used again: a string of the header would keep all of it.
type slot struct {
	Request

	agent []byte
}

func (r *ring) put(request Request, agent string) {
	s := &r.slots[r.count%len(r.slots)]
	s.Request, s.agent = request, append(s.agent[:0], agent[:min(len(agent), maxAgent)]...)
	r.count++
}

// list returns the requests, the latest first.
func (r *ring) list() []Request {
	list := make([]Request, 0, min(r.count, len(r.slots)))
	for i := range cap(list) {
		s := r.slots[(r.count-1-i)%len(r.slots)]
		s.Agent = cut(string(s.agent), maxAgent)
		list = append(list, s.Request)
	}
	return list
}

// note keeps a request that named a repository. One that succeeds does not allocate.
func (rs *recent) note(r *http.Request, w *recorder, t target, aborted bool) {
	if t.repo.Name == "" && w.err == nil {
		return
	}
	repository := t.repo.Name
	if repository == "" {
		repository = cut(shownURL(r.URL), maxLogged)
	}
	one := Request{
		At: w.start, Client: r.RemoteAddr, Method: methodOf(r), Upstream: t.repo.Upstream, Repository: repository, Reference: t.reference,
		Status: w.status, Bytes: w.bytes, Took: time.Since(w.start), Cache: w.Header().Get(xCache),
	}
	const maxError = 300
	failed := aborted || w.err != nil
	if w.err != nil {
		one.Error = cut(w.err.Error(), maxError)
	} else if aborted {
		one.Error = "the answer was cut off"
	}
	agent := r.UserAgent()
	rs.mu.Lock()
	defer rs.mu.Unlock()
	rs.requests.put(one, agent)
	if failed {
		rs.failures.put(one, agent)
	}
}

// methodOf returns the method, "other" for what no registry knows: a client may send any text.
func methodOf(r *http.Request) string {
	if slices.Contains([]string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete}, r.Method) {
		return r.Method
	}
	return "other"
}

// list returns what was kept.
func (rs *recent) list() Recent {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	return Recent{rs.requests.list(), rs.failures.list()}
}
