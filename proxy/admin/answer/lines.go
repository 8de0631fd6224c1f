package answer

import (
	"encoding/json"
	"net/http"
	"time"
)

// Lines is an answer of lines of JSON, each of which reaches the client at once. One goroutine at
// a time may use it.
type Lines struct {
	w    http.ResponseWriter
	sent time.Time // the latest line
}

// NewLines begins an answer with the status 200.
func NewLines(w http.ResponseWriter) *Lines {
	w.Header().Set("Content-Type", "application/x-ndjson")
	return &Lines{w: w}
}

// Send sends a line. When the client has left, the context of the request ends.
func (l *Lines) Send(v any) {
	l.sent = time.Now()
	_ = json.NewEncoder(l.w).Encode(v)
	_ = http.NewResponseController(l.w).Flush()
}

// progressEvery is the time between two lines of progress: a person sees it move.
const progressEvery = 200 * time.Millisecond

// Due reports whether it is time for a line of progress: the latest line is not of a moment ago.
func (l *Lines) Due() bool { return time.Since(l.sent) >= progressEvery }
