package admin

import (
	"net/http"

	"github.com/larder-registry/larder/cache"
	"github.com/larder-registry/larder/proxy/admin/answer"
)

// ScrubReport is one line of the response to a scrub: its progress, and in the last
// line its result or error.
type ScrubReport struct {
	Done   int64              `json:"done"`  // bytes
	Total  int64              `json:"total"` // bytes; grows if blobs are cached meanwhile
	Result *cache.ScrubResult `json:"result,omitempty"`
	Error  string             `json:"error,omitempty"`
}

// scrub answers with one line of JSON for each report. The scrub ends when the client
// leaves.
func (a *api) scrub(w http.ResponseWriter, r *http.Request) {
	lines := answer.NewLines(w)
	var last ScrubReport
	lines.Send(last) // another scrub may have to end before this one begins
	result, err := a.store.Scrub(r.Context(), func(done, total int64) {
		last.Done, last.Total = done, total
		if lines.Due() {
			lines.Send(last)
		}
	})
	last.Result = &result
	if err != nil {
		last.Error = err.Error()
	}
	lines.Send(last)
}
