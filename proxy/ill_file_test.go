package proxy_test

import (
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/larder-registry/larder/upstream/ecrtest"
)

// TestBlobThatCannotBeOpenedPassesThrough has files of the cache replaced by what cannot be
// opened or read, which permissions could not do for root.
func TestBlobThatCannotBeOpenedPassesThrough(t *testing.T) {
	for name, replace := range map[string]func(path string) error{
		"a file in place of its folder": func(path string) error {
			folder := filepath.Dir(path)
			return errors.Join(os.RemoveAll(folder), os.WriteFile(folder, nil, 0o640))
		},
		"a pipe in its place": func(path string) error { return errors.Join(os.Remove(path), unix.Mkfifo(path, 0o640)) },
		"a link in its place": func(path string) error { return errors.Join(os.Remove(path), os.Symlink("/dev/zero", path)) },
		"half of it":          func(path string) error { return os.Truncate(path, 50_000) },
		"more than it":        func(path string) error { return os.Truncate(path, 200_000) },
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, settings{})
			content := bytesOf(t, ecrtest.Random(1, 100_000))
			blob := r.addBlob(app, ecrtest.Bytes(content))
			path := blobPath(app, blob.Digest)
			r.cache(path)
			file := filepath.Join(r.dir, "blobs", "sha256", blob.Digest.Encoded()[:2], blob.Digest.Encoded())
			if err := replace(file); err != nil {
				t.Fatal(err)
			}
			for range 3 {
				head := r.head(path)
				wantStatus(t, head, http.StatusOK)
				wantHeader(t, head, "Content-Length", "100000")
				a := r.get(path)
				wantStatus(t, a, http.StatusOK)
				wantBody(t, a, content)
				a = r.get(path, "Range", "bytes=60000-69999")
				wantStatus(t, a, http.StatusPartialContent)
				wantBody(t, a, content[60_000:70_000])
			}
		})
	}
}
