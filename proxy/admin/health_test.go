package admin

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/larder-registry/larder/upstream"
)

// White-box: a store is degraded only while its disk fails.

func TestReadyzReportsTheStateOfADaemonThatServes(t *testing.T) {
	draining, readOnly := errors.New("draining"), errors.New("read-only file system")
	asked := upstream.Status{Host: "docker.io"}
	offline := upstream.Status{Host: "quay.io", Offline: true}
	for _, test := range []struct {
		ready, degraded error
		unused          string
		upstreams       []upstream.Status
		status          int
		body            string
	}{
		{nil, nil, "", nil, http.StatusOK, "ok\n"},
		{nil, nil, "containerd has no config_path", nil, http.StatusOK, "ok; installed, but not used: containerd has no config_path\n"},
		{nil, nil, "", []upstream.Status{asked, offline}, http.StatusOK, "ok; offline: quay.io\n"},
		{nil, readOnly, "", nil, http.StatusOK, "degraded: content that is not cached is passed through and not kept: read-only file system\n"},
		{draining, nil, "", nil, http.StatusServiceUnavailable, "draining\n"},
		{draining, readOnly, "", nil, http.StatusServiceUnavailable, "draining\n"},
	} {
		w := httptest.NewRecorder()
		h := readyz(func() error { return test.ready }, func() error { return test.degraded }, func() error { return nil }, func() string { return test.unused }, func() []upstream.Status { return test.upstreams })
		h(w, httptest.NewRequest(http.MethodGet, "/readyz", http.NoBody))
		if w.Code != test.status || w.Body.String() != test.body {
			t.Errorf("ready: %v, degraded: %v: %d %q, want %d %q", test.ready, test.degraded, w.Code, w.Body, test.status, test.body)
		}
	}
}
