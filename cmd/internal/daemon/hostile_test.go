package daemon

import (
	"context"
	"errors"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/larder-registry/larder/upstream/name"
)

func TestOddFormsOfHostsChangeNoOtherUpstream(t *testing.T) {
	for _, host := range []string{
		" ", "*", "**", "*.*", "*.amazonaws.com", "*.dkr.ecr.*.amazonaws.com.", "docker.io/", "docker.io/library", "https://docker.io", "docker.io?x",
		"user:secret@docker.io", "docker.io\x00", "docker.io\n", "\x1b[2J", "d%6fcker.io", "docker.io:80", "docker.io:99999", "..", ".", "-", "[::1", "ｄocker.io",
		strings.Repeat("a", 1<<20), strings.Repeat("a.", 1<<16) + "com", "evil.dkr.ecr.us-east-1.amazonaws.com.evil.test",
	} {
		p, _ := testPresence(t)
		err := p.set(host, true)
		if !errors.Is(err, fs.ErrNotExist) || strings.ContainsAny(err.Error(), "\x00\x1b\n") {
			t.Errorf("%.40q: %.200v", host, err)
		}
		wantOffline(t, p)
	}
	for _, host := range []string{"DOCKER.IO", "docker.io:443", "index.docker.io", "registry-1.docker.io"} {
		p, _ := testPresence(t)
		setPresence(t, p, host, true)
		wantOffline(t, p, name.DockerHub)
	}
}

// A method is case-sensitive, and a header does not change it.
func TestOddRequestsOfReadersAreRefused(t *testing.T) {
	served := 0
	h := readersOnly(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { served++ }))
	for _, user := range []any{nil, os.Geteuid() + 1, -1, int64(0), "0", errors.New("the kernel does not tell")} {
		for _, method := range []string{"get", "POST", "PUT", "DELETE", "PATCH", "CONNECT", "TRACE", "OPTIONS", "", "GET\t"} {
			r := httptest.NewRequestWithContext(context.WithValue(t.Context(), userKey{}, user), http.MethodGet, "/api/v1/pins", http.NoBody)
			r.Method = method
			r.Header.Set("X-Http-Method-Override", http.MethodGet)
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			if w.Code != http.StatusForbidden || served > 0 || !strings.Contains(w.Body.String(), "only root") {
				t.Errorf("user %v, method %q: %d %s", user, method, w.Code, w.Body)
			}
		}
	}
}
