package admin

import (
	"encoding/json"
	"net/http"
	"time"

	"github.com/larder-registry/larder/cache"
)

// ScrubReport is one line of the response to a scrub: its progress, and in the last
// line its result or error.
type ScrubReport struct {
	Done   int64              `json:"done"`  // bytes
	Total  int64              `json:"total"` // bytes; grows if blobs are cached meanwhile
	Result *cache.ScrubResult `json:"result,omitempty"`
	Error  string             `json:"error,omitempty"`
}

// reportEvery is the time between two reports of a scrub.
const reportEvery = 200 * time.Millisecond

// scrub answers with one line of JSON for each report. The scrub ends when the client
// leaves.
func (a *api) scrub(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/x-ndjson")
	lines, conn := json.NewEncoder(w), http.NewResponseController(w)
	send := func(report ScrubReport) {
		_ = lines.Encode(report) // when the client leaves, the context ends
		_ = conn.Flush()
	}
	var last ScrubReport
	var sent time.Time
	send(last) // another scrub may have to end before this one begins
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
