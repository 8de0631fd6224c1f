package proxy

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"
)

// The stream of events (WHATWG HTML, "Server-sent events"). Every event is the
// whole of what it is about, so a client that is slow misses some and still ends
// up with what holds; nothing queues for it.

const (
	// maxWatchers bounds the streams that are open.
	maxWatchers = 32
	// heartbeatEvery is how long a stream may be silent: proxies close what is for
	// a minute. It tells the time.
	heartbeatEvery = 15 * time.Second
	// maxWrite is how long a client may take for one event.
	maxWrite = 20 * time.Second
)

// events streams until the client leaves or Run ends.
func (p *Page) events(w http.ResponseWriter, r *http.Request) {
	// Another site's script cannot read the stream, but could use them all up.
	if site := r.Header.Get("Sec-Fetch-Site"); site != "" && site != "same-origin" && site != "none" {
		http.Error(w, "not for other sites", http.StatusForbidden)
		return
	}
	if !p.watchers.enter() {
		w.Header().Set("Retry-After", "10")
		http.Error(w, fmt.Sprintf("%d pages are open already", maxWatchers), http.StatusServiceUnavailable)
		return
	}
	defer p.watchers.leave()
	w.Header().Set("Content-Type", "text/event-stream")
	s := &stream{w: w, control: http.NewResponseController(w)}
	defer func() { _ = s.control.SetWriteDeadline(time.Time{}) }() // the connection's next answer has its own
	s.tick()
	s.send("about", p.about())
	s.send("history", p.history.all())
	heartbeat := time.NewTicker(heartbeatEvery)
	defer heartbeat.Stop()
	var seen int64
	for s.err == nil {
		notes, changed := p.board.since(seen)
		for _, n := range notes {
			s.write(n.event, n.data)
			seen = max(seen, n.number)
		}
		s.flush()
		select {
		case <-changed:
		case <-heartbeat.C:
			s.tick()
		case <-r.Context().Done():
			return
		case <-p.ended:
			return
		}
	}
}

// stream is the answer to one client. It belongs to one goroutine.
type stream struct {
	w       http.ResponseWriter
	control *http.ResponseController
	err     error // of the first write that failed; nothing is sent after it
}

func (s *stream) send(event string, v any) {
	data, err := json.Marshal(v)
	if err != nil {
		s.err = err
		return
	}
	s.write(event, data)
}

// tick tells the time: the page shows ages, by the clock of the daemon.
func (s *stream) tick() { s.send("time", time.Now().UnixMilli()) }

func (s *stream) write(event string, data []byte) {
	if s.err != nil {
		return
	}
	_ = s.control.SetWriteDeadline(time.Now().Add(maxWrite)) // where there is none, the client's connection decides
	_, s.err = fmt.Fprintf(s.w, "event: %s\ndata: %s\n\n", event, data)
}

func (s *stream) flush() {
	if s.err == nil {
		s.err = s.control.Flush()
	}
}

// show puts an event on the board, unless it says what the last one said.
func (p *Page) show(event string, v any) {
	data, err := json.Marshal(v)
	if err != nil {
		p.log.Error("the status page cannot show something", "event", event, "error", err)
		return
	}
	p.board.put(event, data)
}

// board has the latest event of each kind. It is safe for concurrent use.
type board struct {
	mu      sync.Mutex // guards what follows
	notes   []note     // one of each kind
	last    int64      // number of the latest
	changed chan struct{}
}

// note is an event on the board.
type note struct {
	event  string
	data   []byte
	number int64 // grows with each
}

func (b *board) put(event string, data []byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	at := slices.IndexFunc(b.notes, func(n note) bool { return n.event == event })
	switch {
	case at < 0:
		at = len(b.notes)
		b.notes = append(b.notes, note{event: event})
	case bytes.Equal(b.notes[at].data, data):
		return
	}
	b.last++
	b.notes[at].data, b.notes[at].number = data, b.last
	close(b.changed)
	b.changed = make(chan struct{})
}

// since returns the events that came after one, and what is closed when there
// are more.
func (b *board) since(number int64) (newer []note, changed <-chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, n := range b.notes {
		if n.number > number {
			newer = append(newer, n)
		}
	}
	return newer, b.changed
}

// watchers counts the streams. It is safe for concurrent use.
type watchers struct {
	mu    sync.Mutex // guards what follows
	count int
	come  chan struct{} // closed while there are some
}

// enter lets another one in, if there are not too many.
func (w *watchers) enter() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.count == maxWatchers {
		return false
	}
	w.count++
	if w.count == 1 {
		close(w.come)
	}
	return true
}

func (w *watchers) leave() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.count--
	if w.count == 0 {
		w.come = make(chan struct{})
	}
}

// some is closed while there are watchers.
func (w *watchers) some() <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.come
}
