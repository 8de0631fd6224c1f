package proxy

import (
	"encoding/json"
	"net/http"
	"time"

	"github.com/larder-registry/larder/cache"
)

// ScrubReport is a line of the answer to a scrub: how far it is, or as the last
// one what it found, or why it ended early.
type ScrubReport struct {
	Done   int64              `json:"done"`  // bytes
	Total  int64              `json:"total"` // bytes; more where blobs come meanwhile
	Result *cache.ScrubResult `json:"result,omitempty"`
	Error  string             `json:"error,omitempty"`
}

// reportEvery is how often a scrub says how far it is.
const reportEvery = 200 * time.Millisecond

// scrub answers with a line of JSON for each report. A client that hangs up ends
// it.
func (a api) scrub(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/x-ndjson")
	lines, conn := json.NewEncoder(w), http.NewResponseController(w)
	send := func(report ScrubReport) {
		_ = lines.Encode(report) // a client that left has ended the context, too
		_ = conn.Flush()
	}
	var last ScrubReport
	var sent time.Time
	send(last) // it may have to wait for another scrub to end
	result, err := a.store.Scrub(r.Context(), func(done, total int64) {
		last.Done, last.Total = done, total
		if time.Since(sent) >= reportEvery {
			sent = time.Now()
			send(last)
		}
	})
	last.Result = &result
	if err != nil {
		last.Error = err.Error()
	}
	send(last)
}
