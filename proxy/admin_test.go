package proxy_test

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/larder-registry/larder/proxy"
)

func TestAdmin(t *testing.T) {
	var notReady, degraded error
	r := newRig(t, settings{})
	handler := proxy.Admin(proxy.NewPage(proxy.PageOptions{Proxy: r.proxy}), http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "larder_fills_total 1\n")
	}), func() error { return notReady }, func() error { return degraded })
	ask := func(method, path string) (int, string) {
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, httptest.NewRequest(method, path, nil))
		return w.Code, w.Body.String()
	}
	for _, test := range []struct {
		method, path string
		ready, disk  error
		status       int
		body         string
	}{
		{http.MethodGet, "/healthz", nil, nil, http.StatusOK, "ok"},
		{http.MethodGet, "/readyz", nil, nil, http.StatusOK, "ok"},
		{http.MethodGet, "/readyz", errors.New("draining"), nil, http.StatusServiceUnavailable, "draining"},
		{http.MethodGet, "/readyz", nil, errors.New("read-only file system"), http.StatusOK, "degraded: what is not cached is passed through without being kept: read-only file system"},
		{http.MethodGet, "/readyz", errors.New("draining"), errors.New("read-only file system"), http.StatusServiceUnavailable, "draining"},
		{http.MethodGet, "/healthz", errors.New("draining"), errors.New("read-only file system"), http.StatusOK, "ok"},
		{http.MethodGet, "/metrics", nil, nil, http.StatusOK, "larder_fills_total"},
		{http.MethodHead, "/healthz", nil, nil, http.StatusOK, ""},
		{http.MethodPost, "/readyz", nil, nil, http.StatusMethodNotAllowed, ""},
		{http.MethodGet, "/", nil, nil, http.StatusOK, "<!doctype html>"},
		{http.MethodPost, "/", nil, nil, http.StatusMethodNotAllowed, ""},
		{http.MethodPut, "/api/v1/pins", nil, nil, http.StatusNotFound, ""},
		{http.MethodDelete, "/api/v1/images", nil, nil, http.StatusNotFound, ""},
		{http.MethodGet, "/v2/", nil, nil, http.StatusNotFound, ""},
	} {
		notReady, degraded = test.ready, test.disk
		if status, body := ask(test.method, test.path); status != test.status || !strings.Contains(body, test.body) {
			t.Errorf("%s %s, ready: %v, disk: %v: %d %q, want %d %q", test.method, test.path, test.ready, test.disk, status, body, test.status, test.body)
		}
	}
}

// The admin listener may be open to a cluster, for Prometheus.
func TestProfilesAreForThisMachineOnly(t *testing.T) {
	page := proxy.NewPage(proxy.PageOptions{Proxy: newRig(t, settings{}).proxy})
	handler := proxy.Admin(page, http.NotFoundHandler(), func() error { return nil }, func() error { return nil })
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
