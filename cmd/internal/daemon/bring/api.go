package bring

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/larder-registry/larder/cache"
	"github.com/larder-registry/larder/upstream/name"
)

// maxRequest bounds the body of a request, in bytes: some ten thousand images.
const maxRequest = 4 << 20

// Request is the body of POST /api/v1/warm.
type Request struct {
	Images []string `json:"images"` // full names
	// Platforms are those of indexes, such as linux/arm64, or [All]. Without any, the
	// daemon's own is meant.
	Platforms []string `json:"platforms,omitempty"`
	Referrers bool     `json:"referrers,omitempty"`
	// Now fetches as for a client that waits, and follows tags that tags.cooldown delays.
	// Otherwise it is background work: requests of clients come first.
	Now bool `json:"now,omitempty"`
}

// Report is a line of the answer to POST /api/v1/warm: the progress of all images, or in the
// last line the results.
type Report struct {
	Progress []Progress `json:"progress,omitempty"`
	Results  []Outcome  `json:"results,omitempty"`
}

// Outcome is a result as commands get it.
type Outcome struct {
	Result
	Error string `json:"error,omitempty"`
}

// AddTo adds POST /api/v1/warm. It does not authenticate; user names the user that sent a
// request, for the log. The work ends when the client leaves.
func (b *Bringer) AddTo(mux *http.ServeMux, user func(*http.Request) string) {
	mux.HandleFunc("POST /api/v1/warm", func(w http.ResponseWriter, r *http.Request) { b.warm(w, r, user(r)) })
}

func (b *Bringer) warm(w http.ResponseWriter, r *http.Request, user string) {
	images, req, err := readRequest(r.Body)
	if err != nil {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusBadRequest)
		_ = json.NewEncoder(w).Encode(struct { // an error means that the client has left
			Error string `json:"error"`
		}{err.Error()})
		return
	}
	ctx := cache.Unattended(r.Context())
	if req.Now {
		ctx = r.Context()
		for i := range images {
			images[i].NowFor = user
		}
	}
	b.log.Info("a command fetches images", "user", user, "images", len(images), "now", req.Now)
	w.Header().Set("Content-Type", "application/x-ndjson")
	lines, conn := json.NewEncoder(w), http.NewResponseController(w)
	send := func(report Report) {
		_ = lines.Encode(report) // when the client leaves, the context ends
		_ = conn.Flush()
	}
	results := b.Bring(ctx, images, func(all []Progress) { send(Report{Progress: all}) })
	last := Report{Results: make([]Outcome, len(results))}
	for i, result := range results {
		last.Results[i] = Outcome{Result: result}
		if result.Err != nil {
			last.Results[i].Error = result.Err.Error()
			b.log.Warn("an image could not be fetched whole", "image", result.Image, "error", result.Err)
		}
	}
	send(last)
}

// readRequest reads a request to its end, so that the server notices when the client leaves.
func readRequest(body io.Reader) ([]Image, Request, error) {
	var req Request
	raw, err := io.ReadAll(io.LimitReader(body, maxRequest+1))
	switch {
	case err != nil:
		return nil, req, err
	case len(raw) > maxRequest:
		return nil, req, fmt.Errorf("the request has more than %d bytes: name fewer images at once", maxRequest)
	}
	if err := json.Unmarshal(raw, &req); err != nil {
		return nil, req, fmt.Errorf("read the request: %w", err)
	}
	wanted, err := ParsePlatforms(req.Platforms)
	if err != nil {
		return nil, req, err
	}
	var images []Image
	for _, text := range req.Images {
		image, err := name.ParseImage(text)
		if err != nil || !strings.EqualFold(image.String(), text) {
			return nil, req, fmt.Errorf("%q is %w", text, name.ErrImage)
		}
		images = append(images, Image{Image: image, Platforms: wanted, Referrers: req.Referrers})
	}
	return images, req, nil
}
