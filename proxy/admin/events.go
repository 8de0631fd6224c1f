package admin

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"time"
)

const (
	// maxStreams bounds the open event streams.
	maxStreams = 32
	// heartbeatEvery bounds how long a stream is silent: proxies close connections
	// that are silent for a minute. A heartbeat tells the time.
	heartbeatEvery = 15 * time.Second
	// maxWrite bounds how long a client may take to read one event.
	maxWrite = 20 * time.Second
)

// events serves the stream of events to each open page (WHATWG HTML, "Server-sent
// events"). Each event has the whole state of its subject. A slow client misses some
// events and still ends with the current state, so nothing is queued for it.
type events struct {
	log      *slog.Logger
	greet    func(*stream) // sends what each stream begins with
	board    board
	watchers watchers
	ended    chan struct{} // closed by end
}

func newEvents(log *slog.Logger, greet func(*stream)) *events {
	return &events{
		log:      log,
		greet:    greet,
		board:    board{changed: make(chan struct{})},
		watchers: watchers{present: make(chan struct{})},
		ended:    make(chan struct{}),
	}
}

// end ends all streams, those that begin later too. It is called once.
func (e *events) end() { close(e.ended) }

// watched returns a channel that is closed while streams are open.
func (e *events) watched() <-chan struct{} { return e.watchers.some() }

// show sends an event to all streams, unless it equals the last one of its name.
func (e *events) show(event string, v any) {
	data, err := json.Marshal(v)
	if err != nil {
		e.log.Error("the status page cannot show an event", "event", event, "error", err)
		return
	}
	e.board.put(event, data)
}

// ServeHTTP streams until the client leaves or end is called.
func (e *events) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !e.watchers.enter() {
		w.Header().Set("Retry-After", "10")
		http.Error(w, fmt.Sprintf("%d pages are open already", maxStreams), http.StatusServiceUnavailable)
		return
	}
	defer e.watchers.leave()
	w.Header().Set("Content-Type", "text/event-stream")
	s := &stream{w: w, control: http.NewResponseController(w)}
	defer func() { _ = s.control.SetWriteDeadline(time.Time{}) }() // the connection may serve another request
	s.tick()
	e.greet(s)
	heartbeat := time.NewTicker(heartbeatEvery)
	defer heartbeat.Stop()
	var seen int64
	for s.err == nil {
		notes, changed := e.board.since(seen)
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
		case <-e.ended:
			return
		}
	}
}

// stream is the response to one client. It belongs to one goroutine.
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

// tick sends the daemon's time, from which the page computes ages.
func (s *stream) tick() { s.send("time", time.Now().UnixMilli()) }

func (s *stream) write(event string, data []byte) {
	if s.err != nil {
		return
	}
	_ = s.control.SetWriteDeadline(time.Now().Add(maxWrite)) // not every writer has one
	_, s.err = fmt.Fprintf(s.w, "event: %s\ndata: %s\n\n", event, data)
}

func (s *stream) flush() {
	if s.err == nil {
		s.err = s.control.Flush()
	}
}

// board has the latest event of each name. It is safe for concurrent use.
type board struct {
	mu      sync.Mutex    // guards what follows
	notes   []note        // one for each name
	last    int64         // the largest number of a note
	changed chan struct{} // closed and replaced with each change
}

// note is an event on the board.
type note struct {
	event  string
	data   []byte
	number int64 // larger than the number of each earlier note
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

// since returns the notes with a larger number, and a channel that is closed when
// there are more.
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

// watchers counts the open streams. It is safe for concurrent use.
type watchers struct {
	mu      sync.Mutex // guards what follows
	count   int
	present chan struct{} // closed while count is not 0
}

// enter counts one more stream, unless maxStreams are open.
func (w *watchers) enter() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.count == maxStreams {
		return false
	}
	w.count++
	if w.count == 1 {
		close(w.present)
	}
	return true
}

func (w *watchers) leave() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.count--
	if w.count == 0 {
		w.present = make(chan struct{})
	}
}

// some returns a channel that is closed while there are watchers.
func (w *watchers) some() <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.present
}
