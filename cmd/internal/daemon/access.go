package daemon

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"path/filepath"

	"github.com/larder-registry/larder/config"
	"github.com/larder-registry/larder/proxy/access"
	"github.com/larder-registry/larder/proxy/admin/answer"
)

// decisionsFile is the file in the cache's folder with the decisions of upstreams about clients.
const decisionsFile = "access.json"

// openAccess returns the gate that decides by the clients' own rights; nil if no upstream has access:
// client. If the key cannot be opened, decisions are forgotten when the process ends.
func openAccess(cfg *config.Config, log *slog.Logger) *access.Gate {
	if !cfg.HasAccessByClient() {
		return nil
	}
	opts := access.Options{
		File:     filepath.Join(cfg.Cache.Dir, decisionsFile),
		Recheck:  cfg.Access.Recheck,
		Offline:  cfg.Access.Offline,
		Negative: cfg.Tags.NegativeTTL,
		Log:      log,
	}
	var err error
	if opts.Key, err = access.OpenKey(cfg.Access.KeyFile); err != nil {
		log.Warn("decisions of upstreams about clients are forgotten when this process ends: set access.key_file to a file that this user can create", "error", err)
		opts.Key, opts.File = access.NewKey(), ""
	}
	return access.New(opts)
}

// Forgotten is the answer to DELETE /api/v1/access.
type Forgotten struct {
	Decisions int `json:"decisions"`
}

var errNoGate = errors.New("no upstream has access: client, so nothing is remembered about clients")

// addAccess adds the requests that list and forget decisions about clients. The parameters upstream and
// user limit what is forgotten to one upstream or one user.
func addAccess(mux *http.ServeMux, gate *access.Gate) {
	handle := func(pattern string, h http.HandlerFunc) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			if gate == nil {
				answer.RefuseWith(w, http.StatusNotFound, errNoGate)
				return
			}
			h(w, r)
		})
	}
	handle("GET /api/v1/access", func(w http.ResponseWriter, _ *http.Request) {
		answer.JSON(w, gate.Decisions())
	})
	handle("DELETE /api/v1/access", func(w http.ResponseWriter, r *http.Request) {
		query := r.URL.Query()
		forgotten, err := gate.Forget(func(upstream, user string) bool {
			return (!query.Has("upstream") || upstream == query.Get("upstream")) && (!query.Has("user") || user == query.Get("user"))
		})
		if err != nil {
			answer.RefuseWith(w, http.StatusInternalServerError, fmt.Errorf("decisions are forgotten until the next start only: %w", err))
			return
		}
		answer.JSON(w, Forgotten{forgotten})
	})
}
