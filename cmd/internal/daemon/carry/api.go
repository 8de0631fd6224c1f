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
)

// Options are the settings of an [API].
type Options struct {
	Store *cache.Store // required
	// Keys returns the keys by one of which a bundle must be signed. Without any, and if it is
	// nil, no signature is required.
	Keys func(context.Context) ([]*sign.Verifier, error)
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
	mux.HandleFunc("POST /api/v1/exports", a.export)
	mux.HandleFunc("GET /api/v1/exports/{id}/blobs/{digest}", a.exported)
	mux.HandleFunc("POST /api/v1/imports", a.beginImport)
	mux.HandleFunc("POST /api/v1/imports/{id}/layout", a.importLayout)
	mux.HandleFunc("PUT /api/v1/imports/{id}/blobs/{digest}", a.importBlob)
	mux.HandleFunc("POST /api/v1/imports/{id}/publish", a.publish)
	mux.HandleFunc("GET /api/v1/inventory", a.inventory)
}

// keys returns the keys by one of which a bundle must be signed.
func (a *API) keys(ctx context.Context) ([]*sign.Verifier, error) {
	if a.opts.Keys == nil {
		return nil, nil
	}
	return a.opts.Keys(ctx)
}
