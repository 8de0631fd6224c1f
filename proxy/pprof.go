package proxy

import (
	"net/http"
	"net/http/pprof"
	"net/netip"
)

// addProfiles serves the profiles of net/http/pprof, to this machine alone: the
// admin listener may be open to a cluster, in which everyone could keep the
// process busy with them, and read how it was started. kubectl port-forward comes
// from this machine.
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
				plain(w, http.StatusForbidden, "profiles are for this machine only: ask by 127.0.0.1, or through kubectl port-forward")
				return
			}
			handler(w, r)
		})
	}
}
