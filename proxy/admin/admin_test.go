package admin_test

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/larder-registry/larder/cache"
	"github.com/larder-registry/larder/proxy/admin"
)

func TestAdminListener(t *testing.T) {
	var notReady error
	r := newRig(t, cache.Options{}, admin.Options{
		Ready: func() error { return notReady },
		Metrics: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, "larder_fills_total 1\n")
		}),
	})
	draining := errors.New("draining")
	for _, test := range []struct {
		method, path string
		ready        error
		status       int
		body         string
	}{
		{http.MethodGet, "/healthz", nil, http.StatusOK, "ok"},
		{http.MethodGet, "/healthz", draining, http.StatusOK, "ok"},
		{http.MethodHead, "/healthz", nil, http.StatusOK, ""},
		{http.MethodGet, "/readyz", nil, http.StatusOK, "ok"},
		{http.MethodGet, "/readyz", draining, http.StatusServiceUnavailable, "draining"},
		{http.MethodPost, "/readyz", nil, http.StatusMethodNotAllowed, ""},
		{http.MethodGet, "/metrics", nil, http.StatusOK, "larder_fills_total"},
		{http.MethodGet, "/", nil, http.StatusOK, "<!doctype html>"},
		{http.MethodPost, "/", nil, http.StatusMethodNotAllowed, ""},
		{http.MethodPut, "/api/v1/pins", nil, http.StatusNotFound, ""},
		{http.MethodDelete, "/api/v1/images", nil, http.StatusNotFound, ""},
		{http.MethodGet, "/v2/", nil, http.StatusNotFound, ""},
	} {
		notReady = test.ready
		if w := r.ask(test.method, test.path); w.Code != test.status || !strings.Contains(w.Body.String(), test.body) {
			t.Errorf("%s %s, ready: %v: %d %q, want %d %q", test.method, test.path, test.ready, w.Code, w.Body, test.status, test.body)
		}
	}
}

// The admin listener may be open to a cluster, for Prometheus.
func TestProfilesAreForThisMachineOnly(t *testing.T) {
	handler := newRig(t, cache.Options{}, admin.Options{}).admin.Handler()
	for _, test := range []struct {
		from   string
		status int
	}{
		{"127.0.0.1:40000", http.StatusOK},
		{"[::1]:40000", http.StatusOK},
		{"[::ffff:127.0.0.1]:40000", http.StatusOK},
		{"10.0.0.7:40000", http.StatusForbidden},
		{"[fd00::7]:40000", http.StatusForbidden},
		{"@", http.StatusForbidden},
	} {
		for _, path := range []string{"/debug/pprof/", "/debug/pprof/heap", "/debug/pprof/cmdline"} {
			req, w := httptest.NewRequest(http.MethodGet, path, nil), httptest.NewRecorder()
			req.RemoteAddr = test.from
			handler.ServeHTTP(w, req)
			if w.Code != test.status {
				t.Errorf("GET %s from %s: %d, want %d", path, test.from, w.Code, test.status)
			}
		}
	}
}
