package admin

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"
)

// White-box: a store is degraded only while its disk fails.

func TestReadyzReportsADegradedCache(t *testing.T) {
	draining, readOnly := errors.New("draining"), errors.New("read-only file system")
	for _, test := range []struct {
		ready, degraded error
		status          int
		body            string
	}{
		{nil, nil, http.StatusOK, "ok\n"},
		{nil, readOnly, http.StatusOK, "degraded: content that is not cached is passed through and not kept: read-only file system\n"},
		{draining, nil, http.StatusServiceUnavailable, "draining\n"},
		{draining, readOnly, http.StatusServiceUnavailable, "draining\n"},
	} {
		w := httptest.NewRecorder()
		readyz(func() error { return test.ready }, func() error { return test.degraded })(w, httptest.NewRequest(http.MethodGet, "/readyz", http.NoBody))
		if w.Code != test.status || w.Body.String() != test.body {
			t.Errorf("ready: %v, degraded: %v: %d %q, want %d %q", test.ready, test.degraded, w.Code, w.Body, test.status, test.body)
		}
	}
}
