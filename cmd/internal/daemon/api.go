package daemon

import (
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
	return commandsAPI(admin.API(store), carry.Options{Store: store, Keys: carry.OpenVerifiers(func() []string { return cfg.Import.Verify }), Log: log})
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
