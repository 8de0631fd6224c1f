package bundle_test

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/cache/bundle"
	"github.com/larder-registry/larder/cache/bundle/bundletest"
)

// folderOf unpacks a tar.
func folderOf(t *testing.T, raw []byte) string {
	t.Helper()
	dir := t.TempDir()
	for _, f := range untar(t, raw) {
		path := filepath.Join(dir, filepath.FromSlash(f.name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(f.content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// readFolder reads the layout in a folder.
func readFolder(t *testing.T, to bundletest.Store, dir string) (*bundle.Reader, *bundle.Layout, error) {
	t.Helper()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	r, err := bundle.NewFolderReader(root.FS())
	if err != nil {
		return nil, nil, err
	}
	defer r.Close()
	l, err := to.Unpack(r)
	return r, l, err
}

func TestUnpackedBundleIsRead(t *testing.T) {
	f := newFleet()
	plan := f.plan(t, bundle.Options{})
	dir := folderOf(t, f.Pack(t, plan, 1, []byte("signature")))
	if err := os.WriteFile(filepath.Join(dir, "notes.txt"), []byte("hello"), 0o644); err != nil {
		t.Fatal(err)
	}
	site := make(bundletest.Store)
	r, layout, err := readFolder(t, site, dir)
	if err != nil {
		t.Fatal(err)
	}
	if string(r.Signature()) != "signature" || !bytes.Equal(r.Description().Raw(), plan.Description().Raw()) {
		t.Error("the description or its signature is another one")
	}
	if diff := cmp.Diff(f.Store, site); diff != "" {
		t.Errorf("blobs differ (-packed +unpacked):\n%s", diff)
	}
	if len(layout.Images) != 3 {
		t.Errorf("images: %v", layout.Images)
	}
}

func TestHostileFoldersAreRefusedByTheNameOfTheEntry(t *testing.T) {
	f := newFleet()
	raw := f.Pack(t, f.plan(t, bundle.Options{}), 1, nil)
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	target := blobPath(f.app.Digest)
	for _, c := range []struct {
		name, entry string
		alter       func(dir string) error
	}{
		{"a link in place of a blob", target, func(dir string) error {
			return errors.Join(os.Remove(filepath.Join(dir, target)), os.Symlink(secret, filepath.Join(dir, target)))
		}},
		{"a link in place of the index", "index.json", func(dir string) error {
			return errors.Join(os.Remove(filepath.Join(dir, "index.json")), os.Symlink(secret, filepath.Join(dir, "index.json")))
		}},
		{"a link in place of the blobs", "blobs/sha256", func(dir string) error {
			blobs := filepath.Join(dir, "blobs/sha256")
			return errors.Join(os.RemoveAll(blobs), os.Symlink(filepath.Dir(secret), blobs))
		}},
		{"a folder in place of a blob", target, func(dir string) error {
			return errors.Join(os.Remove(filepath.Join(dir, target)), os.Mkdir(filepath.Join(dir, target), 0o755))
		}},
		{"a file that is no blob", "blobs/sha256/x", func(dir string) error {
			return os.WriteFile(filepath.Join(dir, "blobs/sha256/x"), nil, 0o644)
		}},
		{"a blob that is missing", target, func(dir string) error { return os.Remove(filepath.Join(dir, target)) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := folderOf(t, raw)
			if err := c.alter(dir); err != nil {
				t.Fatal(err)
			}
			_, _, err := readFolder(t, make(bundletest.Store), dir)
			var entry *bundle.EntryError
			if !errors.As(err, &entry) || entry.Name != c.entry {
				t.Errorf("got %v", err)
			}
		})
	}
}

func blobPath(d digest.Digest) string { return "blobs/sha256/" + d.Encoded() }

// A file may shrink while it is read.
func TestFileThatIsShorterThanItWasIsRefused(t *testing.T) {
	content := blob("content")
	r, err := bundle.NewFolderReader(shrinking{fstest.MapFS{
		"oci-layout": {Data: []byte(layoutFile.content)}, "index.json": {Data: []byte(emptyIndex.content)},
		content.name: {Data: []byte(content.content)},
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if b, err := r.Next(); err != nil || b.Size != 9 {
		t.Fatalf("blob of %d bytes: %v", b.Size, err)
	}
	var entry *bundle.EntryError
	if got, err := io.ReadAll(r); !errors.As(err, &entry) || entry.Name != content.name || string(got) != "content" {
		t.Errorf("read %q, %v", got, err)
	}
}

// shrinking has blobs with two bytes less than their size.
type shrinking struct{ fstest.MapFS }

func (s shrinking) Stat(name string) (fs.FileInfo, error) {
	info, err := s.MapFS.Stat(name)
	if strings.HasPrefix(name, "blobs/sha256/") && err == nil {
		return longer{info}, nil
	}
	return info, err
}

func (s shrinking) Lstat(name string) (fs.FileInfo, error) { return s.Stat(name) }

type longer struct{ fs.FileInfo }

func (l longer) Size() int64 { return l.FileInfo.Size() + 2 }
