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
	var notReady error
	handler := proxy.Admin(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "larder_fills_total 1\n")
	}), func() error { return notReady })
	ask := func(method, path string) (int, string) {
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, httptest.NewRequest(method, path, nil))
		return w.Code, w.Body.String()
	}
	for _, test := range []struct {
		method, path string
		ready        error
		status       int
		body         string
	}{
		{http.MethodGet, "/healthz", nil, http.StatusOK, "ok"},
		{http.MethodGet, "/readyz", nil, http.StatusOK, "ok"},
		{http.MethodGet, "/readyz", errors.New("draining"), http.StatusServiceUnavailable, "draining"},
		{http.MethodGet, "/healthz", errors.New("draining"), http.StatusOK, "ok"},
		{http.MethodGet, "/metrics", nil, http.StatusOK, "larder_fills_total"},
		{http.MethodHead, "/healthz", nil, http.StatusOK, ""},
		{http.MethodPost, "/readyz", nil, http.StatusMethodNotAllowed, ""},
		{http.MethodGet, "/v2/", nil, http.StatusNotFound, ""},
	} {
		notReady = test.ready
		if status, body := ask(test.method, test.path); status != test.status || !strings.Contains(body, test.body) {
			t.Errorf("%s %s, ready: %v: %d %q, want %d %q", test.method, test.path, test.ready, status, body, test.status, test.body)
		}
	}
}
