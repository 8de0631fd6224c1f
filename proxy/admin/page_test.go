package admin_test

import (
	"io/fs"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/larder-registry/larder/cache"
	"github.com/larder-registry/larder/proxy/admin"
)

func TestPageHasOnlyFilesThatABrowserCanTrust(t *testing.T) {
	r := newRig(t, cache.Options{}, admin.Options{})
	files, err := fs.Glob(os.DirFS("page"), "*.[cjs]*")
	if err != nil || len(files) < 4 {
		t.Fatalf("%v, %v", files, err)
	}
	types := map[string]string{"css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8", "svg": "image/svg+xml"}
	paths := map[string]string{"/": "text/html; charset=utf-8"}
	for _, file := range files {
		_, ext, _ := strings.Cut(file, ".")
		paths["/page/"+file] = types[ext]
	}
	delete(paths, "/page/screenshot.png")
	for path, mediaType := range paths {
		w := r.ask(http.MethodGet, path)
		if w.Code != http.StatusOK || w.Body.Len() == 0 || w.Header().Get("Content-Type") != mediaType {
			t.Errorf("%s: %d, %d bytes of %q, want %q", path, w.Code, w.Body.Len(), w.Header().Get("Content-Type"), mediaType)
		}
		policy := w.Header().Get("Content-Security-Policy")
		if !strings.HasPrefix(policy, "default-src 'none'; ") || strings.Contains(policy, "unsafe") || strings.Contains(policy, "*") {
			t.Errorf("%s: Content-Security-Policy: %q", path, policy)
		}
		if got := w.Header().Get("X-Content-Type-Options"); got != "nosniff" {
			t.Errorf("%s: X-Content-Type-Options: %q", path, got)
		}
		if other := regexp.MustCompile(`https?://[^"'\s]*`).FindString(w.Body.String()); other != "" && !strings.HasPrefix(other, "http://www.w3.org/") {
			t.Errorf("%s names %s", path, other)
		}
		if found := regexp.MustCompile(`(?i)innerHTML|outerHTML|insertAdjacent|document\.write|\beval\(| style="| on[a-z]+="`).FindString(w.Body.String()); found != "" {
			t.Errorf("%s has %q, which treats text as code or violates the policy", path, found)
		}
	}
}

func TestPageHasNoOtherFilesAndChangesNothing(t *testing.T) {
	r := newRig(t, cache.Options{}, admin.Options{})
	for request, status := range map[string]int{
		"GET /page/none.js":        http.StatusNotFound,
		"GET /page/screenshot.png": http.StatusNotFound,
		"GET /page/":               http.StatusNotFound,
		"GET /page/..%2fpage.go":   http.StatusNotFound,
		"GET /api/v1/images":       http.StatusNotFound,
		"DELETE /api/v1/images":    http.StatusNotFound,
		"POST /api/v1/events":      http.StatusMethodNotAllowed,
		"POST /":                   http.StatusMethodNotAllowed,
		"HEAD /":                   http.StatusOK,
	} {
		method, target, _ := strings.Cut(request, " ")
		if w := r.ask(method, target); w.Code != status {
			t.Errorf("%s: %d, want %d", request, w.Code, status)
		}
	}
}
