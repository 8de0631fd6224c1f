package admin

import "net/http"

// healthz answers that the process lives.
func healthz(w http.ResponseWriter, _ *http.Request) { writeText(w, http.StatusOK, "ok") }

// readyz answers whether the daemon takes requests. A daemon whose cache is degraded
// does: it passes content through.
func readyz(ready, degraded func() error) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		if err := ready(); err != nil {
			writeText(w, http.StatusServiceUnavailable, err.Error())
			return
		}
		if err := degraded(); err != nil {
			writeText(w, http.StatusOK, "degraded: content that is not cached is passed through and not kept: "+err.Error())
			return
		}
		writeText(w, http.StatusOK, "ok")
	}
}

func writeText(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write([]byte(text + "\n")) // an error means that the client has left
}
