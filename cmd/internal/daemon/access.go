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

// decisionsFile is where the cache's folder has what upstreams said about clients.
const decisionsFile = "access.json"

// openAccess returns what knows the clients' rights, and nil if no upstream has them decide. Without
// its key nothing is remembered from one start to the next.
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
		log.Warn("what upstreams say about clients is forgotten when this process ends: name a file in access.key_file that this user can make", "error", err)
		opts.Key, opts.File = access.NewKey(), ""
	}
	return access.New(opts)
}

// Forgotten is the answer to DELETE /api/v1/access.
type Forgotten struct {
	Decisions int `json:"decisions"`
}

var errNoGate = errors.New("no upstream has access: client, so nothing is remembered about clients")

// addAccess adds the requests about what is remembered of clients' rights. Those for one upstream or
// one user have the parameters upstream and user.
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
