package admin

import (
	"net/http"
	"strings"

	"github.com/larder-registry/larder/upstream"
)

// healthz answers that the process lives.
func healthz(w http.ResponseWriter, _ *http.Request) { writeText(w, http.StatusOK, "ok") }

// readyz answers whether the daemon takes requests. A daemon whose cache is degraded
// does: it passes content through. So does one whose upstreams are offline, and one that the node's runtime
// does not use.
func readyz(ready, degraded, audit func() error, unused func() string, upstreams func() []upstream.Status) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		if err := ready(); err != nil {
			writeText(w, http.StatusServiceUnavailable, err.Error())
			return
		}
		if err := audit(); err != nil {
			writeText(w, http.StatusOK, "degraded: "+err.Error())
			return
		}
		if err := degraded(); err != nil {
			writeText(w, http.StatusOK, "degraded: content that is not cached is passed through and not kept: "+err.Error())
			return
		}
		note := offlineNote(upstreams)
		if why := unused(); why != "" {
			note += "; installed, but not used: " + why
		}
		writeText(w, http.StatusOK, "ok"+note)
	}
}

// offlineNote names the upstreams that are offline, if there are any.
func offlineNote(upstreams func() []upstream.Status) string {
	if upstreams == nil {
		return ""
	}
	var hosts []string
	for _, st := range upstreams() {
		if st.Offline {
			hosts = append(hosts, st.Host)
		}
	}
	if len(hosts) == 0 {
		return ""
	}
	return "; offline: " + strings.Join(hosts, ", ")
}

func writeText(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write([]byte(text + "\n")) // an error means that the client has left
}
