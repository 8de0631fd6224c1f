package cache

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/larder-registry/larder/cache/cachetest"
	"github.com/larder-registry/larder/cache/disk"
	"github.com/larder-registry/larder/cache/fill/filltest"
	"github.com/larder-registry/larder/cache/records"
)

// fileChanges are what may happen to a file of the folder, whoever does it.
var fileChanges = map[string]func(path string) error{
	"removed":      os.RemoveAll,
	"emptied":      func(path string) error { return replaceFile(path, nil) },
	"shorter":      func(path string) error { return resizeFile(path, -1) },
	"longer":       func(path string) error { return resizeFile(path, 1<<20) },
	"flipped":      flipFile,
	"noise":        cachetest.Noise,
	"another file": func(path string) error { return errors.Join(os.RemoveAll(path), cachetest.Noise(path)) },
	"a pipe":       func(path string) error { return errors.Join(os.RemoveAll(path), unix.Mkfifo(path, 0o640)) },
	"a socket": func(path string) error {
		return errors.Join(os.RemoveAll(path), unix.Mknod(path, unix.S_IFSOCK|0o640, 0))
	},
	"a folder":          func(path string) error { return errors.Join(os.RemoveAll(path), os.Mkdir(path, 0o750)) },
	"a link to nowhere": func(path string) error { return errors.Join(os.RemoveAll(path), os.Symlink("/nowhere/at/all", path)) },
	"a link to itself":  func(path string) error { return errors.Join(os.RemoveAll(path), os.Symlink(path, path)) },
	"a link to a file":  func(path string) error { return errors.Join(os.RemoveAll(path), os.Symlink("/proc/version", path)) },
	"a device":          func(path string) error { return errors.Join(os.RemoveAll(path), os.Symlink("/dev/zero", path)) },
}

func replaceFile(path string, content []byte) error {
	return errors.Join(os.RemoveAll(path), os.WriteFile(path, content, 0o640))
}

func resizeFile(path string, by int64) error {
	info, err := os.Lstat(path)
	if err != nil {
		return err
	}
	return os.Truncate(path, max(info.Size()+by, 0))
}

// flipFile changes a bit in the middle of a file, and not its size or its time.
func flipFile(path string) error {
	info, err := os.Lstat(path)
	if err != nil || info.Size() == 0 {
		return err
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt([]byte{raw[len(raw)/2] ^ 1}, int64(len(raw)/2))
	return errors.Join(err, f.Close(), os.Chtimes(path, info.ModTime(), info.ModTime()))
}

// cached is a folder with one of everything, and what is in it.
type cached struct {
	dir          string
	img          *image
	layer, begun *filltest.Origin // the latter has a partial
}

func newCached(t *testing.T) cached {
	t.Helper()
	c := cachedAt(t.TempDir())
	interrupt(t, c.dir, c.begun)
	s := openStore(t, c.dir, c.options())
	pullTag(t, s, team, "v1", c.img, c.layer)
	settle(t, s)
	s.saveSnapshot(t.Context())
	closeStore(t, s)
	return c
}

// cachedAt is the content of newCached in another folder.
func cachedAt(dir string) cached {
	layer := filltest.New(100_000, 1)
	return cached{dir, newImage("a", layer), layer, filltest.New(9<<20, 2)}
}

func (c cached) options() Options {
	opts := resumable
	opts.Tags, opts.VerifyOnRead = freshness, VerifyAlways
	return opts
}

// filePaths are the paths of the files, by their kind.
var filePaths = map[string]func(f *disk.Folder, c cached) string{
	"layer":            func(f *disk.Folder, c cached) string { return f.Blob(c.layer.Digest) },
	"manifest":         func(f *disk.Folder, c cached) string { return f.Blob(c.img.Digest) },
	"partial of begun": func(f *disk.Folder, c cached) string { return f.Partial(c.begun.Digest).Data },
	"journal of begun": func(f *disk.Folder, c cached) string { return f.Partial(c.begun.Digest).Journal },
	"snapshot":         func(f *disk.Folder, _ cached) string { return f.Snapshot() },
	"new snapshot":     func(f *disk.Folder, _ cached) string { return f.NewSnapshot() },
	"attempts to open": func(f *disk.Folder, _ cached) string { return f.IndexOpening() },
	"lock":             func(f *disk.Folder, _ cached) string { return disk.LockPath(f.Dir()) },
	"version":          func(f *disk.Folder, _ cached) string { return filepath.Join(f.Dir(), "larder.version") },
	"ballast":          func(f *disk.Folder, _ cached) string { return f.Ballast() },
	"folder of a blob": func(f *disk.Folder, c cached) string { return filepath.Dir(f.Blob(c.layer.Digest)) },
	"folder of blobs":  func(f *disk.Folder, _ cached) string { return filepath.Join(f.Dir(), "blobs") },
	"folder of sha256": func(f *disk.Folder, _ cached) string { return filepath.Join(f.Dir(), "blobs", "sha256") },
	"folder of begun":  func(f *disk.Folder, _ cached) string { return filepath.Join(f.Dir(), "partial") },
}

// onlyForFiles reports whether a change is for files only.
func onlyForFiles(change string) bool {
	switch change {
	case "shorter", "longer", "flipped", "noise":
		return true
	}
	return false
}

// use uses a store in every way. All content must be right, wherever it comes from, and it must
// be in the cache afterwards.
func (c cached) use(t *testing.T, s *Store, layers ...*filltest.Origin) {
	t.Helper()
	s.memory.forget(c.img.Digest) // as in a process that has just started
	if _, _, err := s.Manifest(t.Context(), team, c.img.Digest, c.img.ask); err != nil {
		t.Errorf("the manifest: %v", err)
	}
	if m, _, err := s.Tag(t.Context(), team, "v1", c.img.ask); err != nil || m.Digest != c.img.Digest {
		t.Errorf("the tag: %s, %v", m.Digest, err)
	}
	for _, o := range layers {
		pull(t, s, o)
		settle(t, s)
		if state := pull(t, s, o); state != Hit {
			t.Errorf("%d bytes, pulled again: %s", len(o.Content), state)
		}
	}
	s.recordUses()
	s.blobs.Trim(1)
	s.blobs.CheckDisk()
	if _, err := s.Stats(); err != nil {
		t.Errorf("stats: %v", err)
	}
	if err := s.index.PutTag(team, "v2", mustTag(t, s)); err != nil {
		t.Errorf("record a tag: %v", err)
	}
	if err := s.writeSnapshot(t.Context()); err != nil {
		t.Errorf("the snapshot: %v", err)
	}
	if err := s.Degraded(); err != nil {
		t.Errorf("degraded: %v", err)
	}
}

func TestAnyFileOfTheFolderMayChange(t *testing.T) {
	whole := newCached(t)
	for file, pathOf := range filePaths {
		for change, damage := range fileChanges {
			if strings.HasPrefix(file, "folder ") && onlyForFiles(change) {
				continue
			}
			running := (len(file)+len(change))%2 == 0 // so that each kind of change comes in both ways
			t.Run(file+" "+change+map[bool]string{true: " while it runs"}[running], func(t *testing.T) {
				t.Parallel()
				c := cachedAt(crash(t, whole.dir))
				path := pathOf(disk.At(c.dir), c)
				apply := func() {
					var err error
					if _, missing := os.Lstat(path); missing != nil { // it does not exist at all times
						err = os.WriteFile(path, []byte("content"), 0o640)
					}
					if err := errors.Join(err, damage(path)); err != nil {
						t.Fatal(err)
					}
				}
				if !running {
					apply()
				}
				s, err := Open(c.dir, quietly(c.options()))
				if err != nil {
					t.Fatalf("it does not start: %v", err)
				}
				loaded(t, s)
				if running {
					apply()
				}
				layers := []*filltest.Origin{c.layer}
				if strings.HasSuffix(file, "begun") {
					layers = append(layers, c.begun)
				}
				c.use(t, s, layers...)
				if err := s.Close(); err != nil {
					t.Errorf("close: %v", err)
				}
				s, err = Open(c.dir, quietly(c.options()))
				if err != nil {
					t.Fatalf("it does not start again: %v", err)
				}
				if s.index.InMemory() {
					t.Error("the index is in memory")
				}
				if _, _, err := s.Tag(t.Context(), team, "v1", dead); err != nil {
					t.Errorf("after a restart the tag: %v", err)
				}
				if state := pull(t, s, c.layer); state != Hit {
					t.Errorf("after a restart the layer: %s", state)
				}
				closeStore(t, s)
			})
		}
	}
}

func quietly(opts Options) Options {
	opts.Log = slog.New(slog.DiscardHandler)
	return opts
}

func mustTag(t *testing.T, s *Store) records.Tag {
	t.Helper()
	tag, err := s.index.Tag(team, "v1")
	if err != nil {
		t.Errorf("the record of the tag: %v", err)
	}
	return tag
}
