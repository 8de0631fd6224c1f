package bring

import (
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/larder-registry/larder/cache"
	"github.com/larder-registry/larder/proxy/admin/answer"
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
	images, req, err := readRequest(r)
	if err != nil {
		answer.RefuseWith(w, http.StatusBadRequest, err)
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
	lines := answer.NewLines(w)
	results := b.Bring(ctx, images, func(all []Progress) { lines.Send(Report{Progress: all}) })
	last := Report{Results: make([]Outcome, len(results))}
	for i, result := range results {
		last.Results[i] = Outcome{Result: result}
		if result.Err != nil {
			last.Results[i].Error = result.Err.Error()
			b.log.Warn("an image could not be fetched whole", "image", result.Image, "error", result.Err)
		}
	}
	lines.Send(last)
}

func readRequest(r *http.Request) ([]Image, Request, error) {
	var req Request
	err := answer.Read(r, maxRequest, &req)
	if errors.Is(err, answer.ErrTooLarge) {
		err = fmt.Errorf("%w: name fewer images at once", err)
	}
	if err != nil {
		return nil, req, err
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
