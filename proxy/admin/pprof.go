package admin

import (
	"net/http"
	"net/http/pprof"
	"net/netip"
)

// addProfiles adds the profiles of net/http/pprof. It serves them to this machine
// only: the admin listener may be open to a cluster, where any client could keep the
// process busy with them and read its command line. Requests of kubectl port-forward
// come from this machine.
func addProfiles(mux *http.ServeMux) {
	for path, handler := range map[string]http.HandlerFunc{
		"/debug/pprof/":        pprof.Index,
		"/debug/pprof/cmdline": pprof.Cmdline,
		"/debug/pprof/profile": pprof.Profile,
		"/debug/pprof/symbol":  pprof.Symbol,
		"/debug/pprof/trace":   pprof.Trace,
	} {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, r *http.Request) {
			if from, err := netip.ParseAddrPort(r.RemoteAddr); err != nil || !from.Addr().Unmap().IsLoopback() {
				writeText(w, http.StatusForbidden, "profiles are for this machine only: use 127.0.0.1 or kubectl port-forward")
				return
			}
			handler(w, r)
		})
	}
}
