package proxy

import "net/http"

// Admin returns the handler of the admin listener: /healthz (the process
// lives), /readyz (it can serve: ready returns nil) and /metrics. A cache that
// passes everything through, for what degraded returns, can serve, and says so.
func Admin(metrics http.Handler, ready, degraded func() error) http.Handler {
	mux := http.NewServeMux()
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
