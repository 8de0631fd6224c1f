package reply_test

import (
	"net/http"
	"testing"

	"github.com/larder-registry/larder/upstream/reply"
)

func TestUnsupportedIsNeitherARefusalNorAFailure(t *testing.T) {
	for status, want := range map[int]bool{
		http.StatusNoContent: true, http.StatusFound: true,
		http.StatusBadRequest: true, http.StatusNotFound: true, http.StatusMethodNotAllowed: true,
		http.StatusNotAcceptable: true, http.StatusGone: true, http.StatusNotImplemented: true,
		http.StatusUnauthorized: false, http.StatusForbidden: false, http.StatusProxyAuthRequired: false,
		http.StatusRequestTimeout: false, http.StatusTooManyRequests: false,
		http.StatusInternalServerError: false, http.StatusBadGateway: false, http.StatusServiceUnavailable: false,
	} {
		if got := reply.Read(respond(t, status, nil, http.NoBody)).Unsupported(); got != want {
			t.Errorf("%d: %t, want %t", status, got, want)
		}
	}
}
