package daemon

import (
	"fmt"
	"log/slog"
	"net/http"

	"github.com/larder-registry/larder/cache"
	"github.com/larder-registry/larder/cmd/internal/daemon/carry"
	"github.com/larder-registry/larder/cmd/internal/daemon/keep"
	"github.com/larder-registry/larder/config"
	"github.com/larder-registry/larder/proxy/admin"
	"github.com/larder-registry/larder/proxy/admin/answer"
)

// FolderAPI returns the handler of /api/v1 for a folder that no daemon serves.
func FolderAPI(cfg *config.Config, store *cache.Store, log *slog.Logger) http.Handler {
	return commandsAPI(admin.API(store), carry.Options{
		Store: store, Keys: carry.OpenVerifiers(func() []string { return cfg.Import.Verify }), Served: served(cfg), Log: log,
	})
}

// served returns why no client is served from a repository; nil if clients are.
func served(cfg *config.Config) func(host, repository string) error {
	return func(host, repository string) error {
		entry, ok := cfg.Match(host)
		switch {
		case !ok:
			return fmt.Errorf("no client is served images of %s, which is not among the upstreams of the configuration: add it, with offline: true if it cannot be reached", host)
		case !entry.Allows(repository):
			return fmt.Errorf("no client is served images of %s/%s, which allow of the upstream %s leaves out: add it there", host, repository, entry.Host)
		}
		return nil
	}
}

// commandsAPI returns the handler of /api/v1: the requests of operators, exports and imports.
func commandsAPI(operators http.Handler, opts carry.Options) *http.ServeMux {
	mux := http.NewServeMux()
	mux.Handle("/", operators)
	carry.New(opts).AddTo(mux)
	return mux
}

// addKept adds the request for the status of the images that are kept.
func addKept(mux *http.ServeMux, k *keep.Keeper) {
	mux.HandleFunc("GET /api/v1/keep", func(w http.ResponseWriter, _ *http.Request) {
		answer.JSON(w, k.All())
	})
}
