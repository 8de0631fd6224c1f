package upstreamtest

import (
	"errors"
	"io/fs"
	"strings"
	"testing"

	"github.com/larder-registry/larder/upstream/auth"
)

// WantNoCredentials wants an error about credentials with a text. It must not read as an answer of the registry, such as
// that there is no such image.
func WantNoCredentials(t *testing.T, err error, text string) {
	t.Helper()
	var credentials *auth.Error
	if !errors.As(err, &credentials) || !strings.Contains(err.Error(), text) {
		t.Errorf("got %v, want an error about credentials with %q", err, text)
	}
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		t.Errorf("%v reads as an answer of the registry", err)
	}
}
