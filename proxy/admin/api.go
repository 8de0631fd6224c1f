package admin

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"strings"

	"github.com/larder-registry/larder/cache"
	"github.com/larder-registry/larder/proxy/admin/answer"
	"github.com/larder-registry/larder/upstream/name"
)

// api is /api/v1. Its fields after store are set if a daemon runs.
type api struct {
	store          *cache.Store
	monitor        *monitor                                                                 // nil if no daemon runs
	fetchManifests func(ctx context.Context, repo cache.Repository, reference string) error // nil for none
	setOffline     func(host string, offline bool) error                                    // nil if no daemon runs
	log            *slog.Logger
}

func (a *api) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /api/v1/images", respond(a.images))
	mux.HandleFunc("DELETE /api/v1/images", respond(a.remove))
	mux.HandleFunc("GET /api/v1/stats", respond(a.stats))
	mux.HandleFunc("GET /api/v1/activity", respond(a.activity))
	mux.HandleFunc("GET /api/v1/pins", respond(a.pins))
	mux.HandleFunc("PUT /api/v1/pins", respond(a.pin))
	mux.HandleFunc("DELETE /api/v1/pins", respond(a.unpin))
	mux.HandleFunc("PUT /api/v1/offline", respond(func(r *http.Request) (any, error) { return nil, a.offline(r, true) }))
	mux.HandleFunc("DELETE /api/v1/offline", respond(func(r *http.Request) (any, error) { return nil, a.offline(r, false) }))
	mux.HandleFunc("POST /api/v1/scrub", a.scrub)
	if a.monitor != nil {
		mux.HandleFunc("PUT /api/v1/mirror", respond(a.monitor.mirror.put))
	}
	return mux
}

// respond sends what a method returns, as JSON. If that is nil, the response has no
// body.
func respond(method func(*http.Request) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		body, err := method(r)
		switch {
		case errors.Is(err, name.ErrImage), errors.Is(err, errPlatforms), errors.Is(err, errMirrorCheck):
			answer.RefuseWith(w, http.StatusBadRequest, err)
		case err != nil:
			answer.Refuse(w, err)
		case body == nil:
			w.WriteHeader(http.StatusNoContent)
		default:
			answer.JSON(w, body)
		}
	}
}

var (
	// errNoDaemon is the error for what only a daemon can tell.
	errNoDaemon  = fmt.Errorf("no daemon runs: %w", fs.ErrNotExist)
	errPlatforms = errors.New(`platforms may be "all", or left out to pin the cached platforms`)
)

func (a *api) images(*http.Request) (any, error) {
	images, err := a.store.Images()
	if images == nil {
		images = []cache.ImageInfo{} // [] rather than null
	}
	return images, err
}

// Stats is the response to GET /api/v1/stats.
type Stats struct {
	cache.Stats
	Activity *Activity `json:"activity,omitempty"` // nil if no daemon runs
}

func (a *api) stats(*http.Request) (any, error) {
	sum, err := a.store.Stats()
	st := Stats{Stats: sum}
	if a.monitor != nil {
		activity := a.monitor.activity()
		st.Activity = &activity
	}
	return st, err
}

func (a *api) activity(*http.Request) (any, error) {
	if a.monitor == nil {
		return nil, errNoDaemon
	}
	return a.monitor.activity(), nil
}

// Removed is the response to DELETE /api/v1/images.
type Removed struct {
	Freed int64 `json:"freed"` // bytes on disk
}

func (a *api) remove(r *http.Request) (any, error) {
	repo, reference, err := imageOf(r)
	if err != nil {
		return nil, err
	}
	freed, err := a.store.Remove(repo, reference)
	return Removed{freed}, err
}

func (a *api) pins(*http.Request) (any, error) { return a.store.Pins() }

func (a *api) pin(r *http.Request) (any, error) {
	repo, reference, err := imageOf(r)
	if err != nil {
		return nil, err
	}
	switch platforms := r.URL.Query().Get("platforms"); platforms {
	case "":
		return nil, a.store.Pin(repo, reference)
	case "all":
		if a.fetchManifests != nil {
			if err := a.fetchManifests(r.Context(), repo, reference); err != nil {
				a.log.Warn("an image is pinned before the size of its other platforms is known", "image", r.URL.Query().Get("image"), "error", err)
			}
		}
		return nil, a.store.PinAllPlatforms(repo, reference)
	default:
		return nil, fmt.Errorf("%q: %w", platforms, errPlatforms)
	}
}

func (a *api) unpin(r *http.Request) (any, error) {
	repo, reference, err := imageOf(r)
	if err != nil {
		return nil, err
	}
	return nil, a.store.Unpin(repo, reference)
}

// offline sets the upstream of the parameter host offline or online, or all of them if it
// is not given.
func (a *api) offline(r *http.Request, offline bool) error {
	if a.setOffline == nil {
		return errNoDaemon
	}
	return a.setOffline(r.URL.Query().Get("host"), offline)
}

// imageOf parses the parameter image. It adds no defaults: the client knows what a
// short name means. A tag beside a digest is refused, since it would be ignored.
func imageOf(r *http.Request) (repo cache.Repository, reference string, err error) {
	text := r.URL.Query().Get("image")
	image, err := name.ParseImage(text)
	if err != nil || !strings.EqualFold(image.String(), text) {
		return cache.Repository{}, "", fmt.Errorf("%q is %w", text, name.ErrImage)
	}
	return cache.Repository{Upstream: image.Host, Name: image.Repository}, image.Reference(), nil
}
