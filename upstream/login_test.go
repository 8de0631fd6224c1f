package upstream

import (
	"errors"
	"io/fs"
	"net/http"
	"testing"
	"time"

	"github.com/larder-registry/larder/upstream/auth"
)

// ECR answers 400 to credentials that it cannot read, and other registries 401 or 403.
func TestLoginThatTheRegistryDoesNotTakeIsRefused(t *testing.T) {
	for status, refused := range map[int]bool{
		http.StatusOK: false, http.StatusBadRequest: true, http.StatusUnauthorized: true, http.StatusForbidden: true,
		http.StatusNotFound: false, http.StatusTeapot: false,
	} {
		r, _ := startPlain(t, Config{}, func(w http.ResponseWriter, req *http.Request) {
			if _, _, ok := req.BasicAuth(); !ok {
				w.Header().Set("WWW-Authenticate", `Basic realm="registry"`)
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
			w.WriteHeader(status)
		})
		ctx := auth.As(t.Context(), auth.Login{Username: "AWS", Password: "x"}, time.Time{})
		if err := r.Login(ctx, repo); errors.Is(err, fs.ErrPermission) != refused || (err == nil) != (status == http.StatusOK) {
			t.Errorf("%d: %v", status, err)
		}
	}
}

// Some registries challenge for what is in a repository, and not at /v2/.
func TestLoginIsKnownOnlyToARegistryThatWantsOne(t *testing.T) {
	r, _ := startPlain(t, Config{}, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) })
	ctx := auth.As(t.Context(), auth.Login{Username: "alice", Password: "x"}, time.Time{})
	if err := r.Login(ctx, repo); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v", err)
	}
}
