package disk_test

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/larder-registry/larder/cache/disk"
)

// ownerOf returns the owner of a file.
func OwnerOf(info os.FileInfo) disk.Owner {
	stat := info.Sys().(*syscall.Stat_t)
	return disk.Owner{User: int(stat.Uid), Group: int(stat.Gid)}
}

func TestGiveToGivesAllOfACacheAndNothingElse(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give files away")
	}
	owner := disk.Owner{User: 65532, Group: 65531}
	outside := filepath.Join(t.TempDir(), "outside")
	if err := os.WriteFile(outside, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "new", "cache")
	for _, makeFolder := range []func(t *testing.T){
		func(*testing.T) {}, // no folder
		func(t *testing.T) { // a folder that root used before
			if err := os.Chown(dir, 0, 0); err != nil {
				t.Fatal(err)
			}
			f, err := disk.Open(dir, disk.Steps{}, discard)
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(os.MkdirAll(f.Index(), 0o700), os.WriteFile(filepath.Join(f.Index(), "MANIFEST"), nil, 0o600), f.Close()); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink(outside, filepath.Join(dir, "blobs", "link")); err != nil {
				t.Fatal(err)
			}
		},
	} {
		makeFolder(t)
		if given, err := disk.GiveTo(dir, owner); !given || err != nil {
			t.Fatalf("GiveTo: %t, %v, want true", given, err)
		}
		err := filepath.WalkDir(dir, func(path string, entry os.DirEntry, err error) error {
			if err != nil {
				return err
			}
			info, err := entry.Info()
			if err == nil && OwnerOf(info) != owner {
				t.Errorf("%s belongs to %v, want %v", path, OwnerOf(info), owner)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		if given, err := disk.GiveTo(dir, owner); given || err != nil {
			t.Errorf("GiveTo a second time: %t, %v, want false", given, err)
		}
	}
	if info, err := os.Lstat(outside); err != nil || OwnerOf(info) != (disk.Owner{}) {
		t.Errorf("the target of a link belongs to %v, %v", OwnerOf(info), err)
	}
}

func TestGiveToRefusesFoldersOfOthers(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "passwd"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := disk.GiveTo(dir, disk.Owner{User: 65532, Group: 65532}); !errors.Is(err, disk.ErrNotACache) {
		t.Errorf("GiveTo: %v, want %v", err, disk.ErrNotACache)
	}
}

func TestFolderWhoseCreationACrashInterruptedIsACache(t *testing.T) {
	names := []string{"blobs", "blobs/sha256", "blobs/sha512", "partial", "lost+found"}
	for set := range 1 << len(names) {
		dir, whole := t.TempDir(), true
		var made []string
		for i, name := range names {
			if set&(1<<i) == 0 {
				continue
			}
			if os.Mkdir(filepath.Join(dir, name), 0o700) != nil { // what it is in is not in the set
				whole = false
				break
			}
			made = append(made, name)
		}
		if !whole {
			continue
		}
		f, err := disk.Open(dir, disk.Steps{}, discard)
		if err != nil {
			t.Errorf("with %v: %v", made, err)
			continue
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	for _, other := range []string{"blobs/notes.txt", "lost+found", "partial/notes.txt", "blobs/sha512/notes.txt", "notes.txt", "blobs/sha1/x"} {
		dir := t.TempDir()
		path := filepath.Join(dir, other)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, nil, 0o600)); err != nil {
			t.Fatal(err)
		}
		if f, err := disk.Open(dir, disk.Steps{}, discard); !errors.Is(err, disk.ErrNotACache) {
			t.Errorf("with %s of somebody else: %v, want %v", other, err, disk.ErrNotACache)
			if err == nil {
				_ = f.Close()
			}
		}
	}
}
