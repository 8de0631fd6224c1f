package proxy

import "net/http"

// Admin returns the handler of the admin listener: /healthz (the process
// lives), /readyz (it can serve: ready returns nil), /metrics, and the status
// page. A cache that passes everything through, for what degraded returns, can
// serve, and says so. Nothing here changes anything.
func Admin(page *Page, metrics http.Handler, ready, degraded func() error) http.Handler {
	mux := http.NewServeMux()
	for _, path := range []string{"GET /{$}", "GET /page/", "GET /api/v1/events"} {
		mux.Handle(path, page)
	}
	mux.Handle("GET /metrics", metrics)
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		plain(w, http.StatusOK, "ok")
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if err := ready(); err != nil {
			plain(w, http.StatusServiceUnavailable, err.Error())
			return
		}
		if err := degraded(); err != nil {
			plain(w, http.StatusOK, "degraded: what is not cached is passed through without being kept: "+err.Error())
			return
		}
		plain(w, http.StatusOK, "ok")
	})
	addProfiles(mux)
	return mux
}

func plain(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write([]byte(text + "\n"))
}
