package cache

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/larder-registry/larder/cache/fill/filltest"
	"github.com/larder-registry/larder/cache/records"
)

// resize makes the file of a blob so many bytes longer, or shorter if by is negative.
func resize(t *testing.T, s *Store, o *filltest.Origin, by int64) {
	t.Helper()
	if err := os.Truncate(s.folder.Blob(o.Digest), int64(len(o.Content))+by); err != nil {
		t.Fatal(err)
	}
}

func TestFileOfAWrongSizeIsFetchedAgain(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir, small)
	repo := Repository{Upstream: "registry.test", Name: "app"}
	o := filltest.New(3<<20, 1)
	addToRepository(t, s, repo, o)
	for _, by := range []int64{-1, -(3 << 20), 1, 1 << 20} {
		for _, restart := range []bool{false, true} {
			resize(t, s, o, by)
			if restart {
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
				s = openStore(t, dir, small)
				<-s.blobs.Loaded()
			}
			if blob := s.BlobHere(repo, o.Digest); blob != nil {
				t.Errorf("%+d bytes, after a restart %t: it is served", by, restart)
				blob.Close()
			}
			if size, err := s.Stat(o.Digest); err == nil {
				t.Errorf("%+d bytes, after a restart %t: a HEAD says %d bytes", by, restart, size)
			}
			if state := pull(t, s, o); state != Miss {
				t.Errorf("%+d bytes, after a restart %t: pulled: %s", by, restart, state)
			}
			settle(t, s)
			if state := pull(t, s, o); state != Hit {
				t.Errorf("%+d bytes, after a restart %t: pulled again: %s", by, restart, state)
			}
		}
	}
}

func TestSizeOfAFileIsThatOfTheManifestIfThereIsNoRecord(t *testing.T) {
	s := openStore(t, t.TempDir(), small)
	repo := Repository{Upstream: "registry.test", Name: "app"}
	o := filltest.New(3<<20, 1)
	addToRepository(t, s, repo, o)
	s.addMember(repo, o.Digest, records.Member{Size: 3 << 20}) // as a manifest says
	if err := s.index.RemoveBlob(o.Digest); err != nil {
		t.Fatal(err)
	}
	resize(t, s, o, -1)
	if blob := s.BlobHere(repo, o.Digest); blob != nil {
		t.Error("a file that is too short is served")
		blob.Close()
	}
	if state := pull(t, s, o); state != Miss {
		t.Errorf("pulled: %s", state)
	}
}

func TestBlobIsServedAgainAfterAManifestWithAWrongSize(t *testing.T) {
	s := openStore(t, t.TempDir(), small)
	o := filltest.New(3<<20, 1)
	pullLayers(t, s, o)
	if err := s.index.RemoveBlob(o.Digest); err != nil { // as if the index had been lost
		t.Fatal(err)
	}
	broken := func(context.Context, Range) (Content, error) { return Content{}, filltest.ErrBroken }
	if blob, err := s.Open(t.Context(), o.Digest, Source{Size: 7, Fetch: broken}); err == nil { // it may be checked by then
		blob.Close()
	}
	settle(t, s)
	eventually(t, "the blob is checked", func() bool { _, err := s.Stat(o.Digest); return err == nil })
	blob, err := s.Open(t.Context(), o.Digest, Source{Size: 7, Fetch: o.Fetch})
	if err != nil {
		t.Fatal(err)
	}
	defer blob.Close()
	if blob.State != Hit || blob.Size != 3<<20 {
		t.Errorf("%s, %d bytes", blob.State, blob.Size)
	}
}

// inPlaceOf puts something else where the file of a blob was.
var inPlaceOf = map[string]func(path string) error{
	"a pipe":            func(path string) error { return unix.Mkfifo(path, 0o640) },
	"a folder":          func(path string) error { return os.Mkdir(path, 0o750) },
	"a link to nowhere": func(path string) error { return os.Symlink("/nowhere", path) },
	"a link to a file":  func(path string) error { return os.Symlink("/proc/version", path) },
	"a device":          func(path string) error { return os.Symlink("/dev/zero", path) },
}

func TestBlobThatIsNoFileIsFetchedAgain(t *testing.T) {
	for what, put := range inPlaceOf {
		t.Run(what, func(t *testing.T) {
			s := openStore(t, t.TempDir(), small)
			o := stock(t, s, 1, 100_000)[0]
			path := s.folder.Blob(o.Digest)
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			if err := put(path); err != nil {
				t.Fatal(err)
			}
			if _, err := s.Stat(o.Digest); err == nil {
				t.Error("a HEAD finds it")
			}
			if state := pull(t, s, o); state != Miss {
				t.Errorf("pulled: %s", state)
			}
			settle(t, s)
			if what == "a folder" { // which no file can replace; the fill removed it
				pull(t, s, o)
				settle(t, s)
			}
			if state := pull(t, s, o); state != Hit {
				t.Errorf("pulled again: %s", state)
			}
		})
	}
}

func TestManifestThatIsNoFileIsFetchedAgain(t *testing.T) {
	for what, put := range inPlaceOf {
		t.Run(what, func(t *testing.T) {
			dir := t.TempDir()
			img := newImage("a")
			s := openStore(t, dir, small)
			pullDigest(t, s, team, img)
			s.memory.forget(img.Digest) // as in a process that has just started
			path := s.folder.Blob(img.Digest)
			if err := errors.Join(os.Remove(path), put(path)); err != nil {
				t.Fatal(err)
			}
			m, state, err := s.Manifest(t.Context(), team, img.Digest, img.ask)
			if err != nil || state != Miss || m.Digest != img.Digest {
				t.Errorf("%s, %v", state, err)
			}
			if info, err := os.Lstat(path); err == nil && !info.Mode().IsRegular() {
				t.Errorf("it is still there: %v", info.Mode())
			}
		})
	}
}

// A file where a folder of blobs should be makes opening fail with ENOTDIR, for root too.
func TestBlobWhoseFolderIsNoFolderIsServedFromItsSource(t *testing.T) {
	s := openStore(t, t.TempDir(), small)
	o := stock(t, s, 1, 100_000)[0]
	folder := filepath.Dir(s.folder.Blob(o.Digest))
	if err := errors.Join(os.RemoveAll(folder), os.WriteFile(folder, nil, 0o640)); err != nil {
		t.Fatal(err)
	}
	if state := pull(t, s, o); state != Miss {
		t.Errorf("without its folder: %s", state)
	}
	settle(t, s)
	if state := pull(t, s, o); state != Hit {
		t.Errorf("with its folder again: %s", state)
	}
}

func TestPartialThatIsNoFileIsFetchedFromTheBeginning(t *testing.T) {
	dir := t.TempDir()
	o := filltest.New(9<<20, 1)
	interrupt(t, dir, o)
	s := openStore(t, dir, resumable)
	<-s.blobs.Loaded()
	paths := s.folder.Partial(o.Digest)
	if err := errors.Join(os.Remove(paths.Journal), unix.Mkfifo(paths.Journal, 0o640)); err != nil {
		t.Fatal(err)
	}
	blob := open(t, s, o)
	defer blob.Close()
	if n, err := io.Copy(io.Discard, blob); err != nil || n != int64(len(o.Content)) {
		t.Errorf("%d bytes, %v", n, err)
	}
}
