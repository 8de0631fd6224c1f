package proxy

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"strings"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/larder-registry/larder/cache"
)

// API returns the handler of /api/v1, by which commands look into the store and
// change it. It asks nobody who they are: serve it where only the operator gets.
func API(store *cache.Store) http.Handler { return api{store: store}.handler() }

// API is the one of the proxy's store, with what takes a proxy: its activity, and
// the upstreams to find out what a pin of all platforms takes.
func (p *Proxy) API() http.Handler { return api{p.store, p}.handler() }

func (a api) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /api/v1/images", a.answer(a.images))
	mux.HandleFunc("DELETE /api/v1/images", a.answer(a.remove))
	mux.HandleFunc("GET /api/v1/stats", a.answer(a.stats))
	mux.HandleFunc("GET /api/v1/activity", a.answer(a.activity))
	mux.HandleFunc("GET /api/v1/pins", a.answer(a.pins))
	mux.HandleFunc("PUT /api/v1/pins", a.answer(a.pin))
	mux.HandleFunc("DELETE /api/v1/pins", a.answer(a.unpin))
	mux.HandleFunc("POST /api/v1/scrub", a.scrub)
	return mux
}

// Removed is the answer to a DELETE of an image.
type Removed struct {
	Freed int64 `json:"freed"` // bytes of disk
}

type api struct {
	store *cache.Store
	proxy *Proxy // nil where none runs
}

// answer sends what a method returns, as JSON; nil is an answer without a body.
func (a api) answer(method func(*http.Request) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		status := http.StatusOK
		body, err := method(r)
		switch {
		case err != nil:
			status = apiStatus(err)
			body = struct {
				Error string `json:"error"`
			}{err.Error()}
		case body == nil:
			w.WriteHeader(http.StatusNoContent)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(body) // a client that left is no error of ours
	}
}

func apiStatus(err error) int {
	switch {
	case errors.Is(err, errImageName), errors.Is(err, errPlatforms):
		return http.StatusBadRequest
	case errors.Is(err, fs.ErrNotExist):
		return http.StatusNotFound
	case errors.Is(err, cache.ErrPinned), errors.Is(err, cache.ErrConfigured):
		return http.StatusConflict
	case errors.Is(err, unix.ENOSPC):
		return http.StatusInsufficientStorage
	case errors.Is(err, cache.ErrClosed):
		return http.StatusServiceUnavailable
	}
	return http.StatusInternalServerError
}

func (a api) images(*http.Request) (any, error) {
	images, err := a.store.Images()
	if images == nil {
		images = []cache.ImageInfo{} // [] rather than null
	}
	return images, err
}

// Stats is the answer to a GET of the stats.
type Stats struct {
	cache.Stats
	Activity *State `json:"activity,omitempty"` // of the daemon, where one runs
}

func (a api) stats(*http.Request) (any, error) {
	sum, err := a.store.Stats()
	st := Stats{Stats: sum}
	if a.proxy != nil {
		activity := a.proxy.State()
		st.Activity = &activity
	}
	return st, err
}

// errNoDaemon is for what only a daemon has.
var errNoDaemon = fmt.Errorf("no daemon runs: %w", fs.ErrNotExist)

func (a api) activity(*http.Request) (any, error) {
	if a.proxy == nil {
		return nil, errNoDaemon
	}
	return a.proxy.State(), nil
}

func (a api) pins(*http.Request) (any, error) { return a.store.Pins() }

func (a api) remove(r *http.Request) (any, error) {
	repo, reference, err := imageOf(r)
	if err != nil {
		return nil, err
	}
	freed, err := a.store.Remove(repo, reference)
	return Removed{freed}, err
}

func (a api) pin(r *http.Request) (any, error) {
	repo, reference, err := imageOf(r)
	if err != nil {
		return nil, err
	}
	switch platforms := r.URL.Query().Get("platforms"); platforms {
	case "":
		return nil, a.store.Pin(repo, reference)
	case "all":
		if a.proxy != nil {
			if err := a.proxy.bringPlatforms(r.Context(), repo, reference); err != nil {
				a.proxy.log.Warn("an image is pinned without knowing what its other platforms take", "image", r.URL.Query().Get("image"), "error", err)
			}
		}
		return nil, a.store.PinAllPlatforms(repo, reference)
	default:
		return nil, fmt.Errorf("%q: %w", platforms, errPlatforms)
	}
}

var errPlatforms = errors.New("platforms may be all, or left out for those that are cached")

func (a api) unpin(r *http.Request) (any, error) {
	repo, reference, err := imageOf(r)
	if err != nil {
		return nil, err
	}
	return nil, a.store.Unpin(repo, reference)
}

var errImageName = errors.New("not an image: <host>/<repository>:<tag> or <host>/<repository>@<digest> is needed")

// imageOf parses the image parameter. Nothing is filled in: who asks knows what
// a short name stands for.
func imageOf(r *http.Request) (repo cache.Repository, reference string, err error) {
	image := r.URL.Query().Get("image")
	name, reference, byDigest := strings.Cut(image, "@")
	valid := byDigest && digest.Digest(reference).Validate() == nil
	if i := strings.LastIndexByte(name, ':'); !byDigest && i >= 0 {
		name, reference = name[:i], name[i+1:]
		valid = isTag(reference)
	}
	host, rest, _ := strings.Cut(name, "/")
	if !valid || !isHost(host) || !isName(rest) || len(name) > maxName {
		return cache.Repository{}, "", fmt.Errorf("%q is %w", image, errImageName)
	}
	return cache.Repository{Upstream: strings.ToLower(host), Name: rest}, reference, nil
}
