package carry

import (
	"context"
	"log/slog"
	"net/http"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/cache"
	"github.com/larder-registry/larder/cache/bundle/sign"
	"github.com/larder-registry/larder/cmd/internal/daemon/bring"
	"github.com/larder-registry/larder/proxy"
	"github.com/larder-registry/larder/proxy/admin/answer"
)

// Options are the settings of an [API].
type Options struct {
	Store *cache.Store // required
	// Keys returns the keys by one of which a bundle must be signed. Without any, and if it is
	// nil, no signature is required.
	Keys func(context.Context) ([]*sign.Verifier, error)
	// Served returns why no client is served from a repository: the configuration has no
	// such upstream, or its allow leaves the repository out. Nil means that every one is served.
	Served func(host, repository string) error
	// Bringer fetches what an export lacks, and FetchReferrers what refers to an image: see
	// proxy.Proxy. Nil, if no daemon runs, means that the cache has to have everything.
	Bringer        *bring.Bringer
	FetchReferrers func(ctx context.Context, repo cache.Repository, image digest.Digest) ([]proxy.Referrer, error)
	// Log is for errors that no client sees. Nil means slog.Default().
	Log *slog.Logger
}

// API serves exports, imports and inventories. It may be used by several goroutines.
type API struct {
	opts    Options
	store   *cache.Store
	exports sessions[*cache.Hold]
	imports sessions[*importing]
}

// New returns an API. Its requests must have ended when the store is closed.
func New(opts Options) *API {
	if opts.Log == nil {
		opts.Log = slog.Default()
	}
	return &API{opts: opts, store: opts.Store}
}

// AddTo adds the requests of this API to those of /api/v1. It does not authenticate.
func (a *API) AddTo(mux *http.ServeMux) {
	mux.Handle("POST /api/v1/exports", handler(a.export))
	mux.Handle("GET /api/v1/exports/{id}/blobs/{digest}", handler(a.exported))
	mux.Handle("POST /api/v1/imports", handler(a.beginImport))
	mux.Handle("POST /api/v1/imports/{id}/layout", handler(a.importLayout))
	mux.Handle("PUT /api/v1/imports/{id}/blobs/{digest}", handler(a.importBlob))
	mux.Handle("POST /api/v1/imports/{id}/publish", handler(a.publish))
	mux.Handle("GET /api/v1/inventory", handler(a.inventory))
}

// handler answers a request, or returns the error to answer with.
type handler func(http.ResponseWriter, *http.Request) error

// ServeHTTP is for [http.Handler].
func (h handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if err := h(w, r); err != nil {
		answer.Refuse(w, err)
	}
}

// keys returns the keys by one of which a bundle must be signed.
func (a *API) keys(ctx context.Context) ([]*sign.Verifier, error) {
	if a.opts.Keys == nil {
		return nil, nil
	}
	return a.opts.Keys(ctx)
}
