package cache

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/larder-registry/larder/cache/disk"
	"golang.org/x/sys/unix"
)

// crash copies a folder as kill -9 would leave it: with every write that was made, and
// without what closing the store would write.
func crash(t *testing.T, dir string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "crashed")
	if err := clone(dir, to); err != nil {
		t.Fatal(err)
	}
	return to
}

// clone copies a folder that is in use, with the modes of its files. It does not copy holes:
// the files of the index consist mostly of these.
func clone(from, to string) error {
	return filepath.WalkDir(from, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return disk.IgnoreMissing(err)
		}
		info, err := entry.Info()
		if err != nil {
			return disk.IgnoreMissing(err)
		}
		name, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		switch target := filepath.Join(to, name); {
		case info.IsDir():
			return os.Mkdir(target, info.Mode().Perm())
		case info.Mode().IsRegular():
			return disk.IgnoreMissing(cloneFile(path, target, info))
		}
		return nil
	})
}

func cloneFile(from, to string, info fs.FileInfo) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE, info.Mode().Perm())
	if err != nil {
		return err
	}
	defer out.Close()
	if err := out.Truncate(info.Size()); err != nil {
		return err
	}
	for off := int64(0); off < info.Size(); {
		begin, err := in.Seek(off, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			return nil // the rest is a hole
		}
		if err != nil {
			return err
		}
		if off, err = in.Seek(begin, unix.SEEK_HOLE); err != nil {
			return err
		}
		if _, err := io.Copy(io.NewOffsetWriter(out, begin), io.NewSectionReader(in, begin, off-begin)); err != nil {
			return err
		}
	}
	return nil
}
