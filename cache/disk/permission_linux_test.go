package disk_test

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/larder-registry/larder/cache/disk"
)

// asNobody gives dir to another user, and calls f with the rights of this user.
func asNobody(t *testing.T, dir string, f func() error) error {
	t.Helper()
	if os.Geteuid() != 0 {
		return f()
	}
	const nobody = 65534
	if _, err := disk.GiveTo(dir, disk.Owner{User: nobody, Group: nobody}); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Dir(dir), 0o711); err != nil { // the folder of the test
		t.Fatal(err)
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Setfsuid(nobody); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Setfsuid(0) }()
	return f()
}

// The root of a file system has a folder that only root may read: lost+found.
func TestMeasureIgnoresFoldersOfOthers(t *testing.T) {
	dir := t.TempDir()
	f := openFolder(t, dir)
	lost := filepath.Join(dir, "lost+found")
	if err := os.Mkdir(lost, 0); err != nil {
		t.Fatal(err)
	}
	if err := asNobody(t, dir, disk.NewSpace(f, disk.Bounds{}).Measure); err != nil {
		t.Error(err)
	}
	if err := os.Remove(lost); err != nil {
		t.Fatal(err)
	}
}

func TestEachBlobSkipsAFolderThatCannotBeRead(t *testing.T) {
	dir := t.TempDir()
	f := openFolder(t, dir)
	var blobs []digest.Digest
	for i := range 8 {
		content := fmt.Append(nil, "blob ", i)
		blobs = append(blobs, digest.FromBytes(content))
		if err := f.WriteBlob(blobs[i], content); err != nil {
			t.Fatal(err)
		}
	}
	closed := filepath.Dir(f.Blob(blobs[3]))
	if err := os.Chmod(closed, 0); err != nil {
		t.Fatal(err)
	}
	visited := 0
	err := asNobody(t, dir, func() error {
		return f.EachBlob("", func(digest.Digest, fs.FileInfo) error { visited++; return nil })
	})
	if err == nil || visited != 7 {
		t.Errorf("%d of 8 blobs were visited: %v; want 7 and an error", visited, err)
	}
	if err := os.Chmod(closed, 0o750); err != nil {
		t.Fatal(err)
	}
}
