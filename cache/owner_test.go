package cache

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func TestGiveToGivesAllOfACacheAndNothingElse(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give files away")
	}
	owner := Owner{65532, 65531}
	outside := filepath.Join(t.TempDir(), "outside")
	if err := os.WriteFile(outside, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "new", "cache")
	for _, makeFolder := range []func(t *testing.T){
		func(*testing.T) {}, // there is none
		func(t *testing.T) { // one that root used before
			if err := os.Chown(dir, 0, 0); err != nil {
				t.Fatal(err)
			}
			store, err := Open(dir, Options{MaxSize: 1 << 20})
			if err != nil {
				t.Fatal(err)
			}
			if err := store.Close(); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink(outside, filepath.Join(dir, "blobs", "link")); err != nil {
				t.Fatal(err)
			}
		},
	} {
		makeFolder(t)
		if given, err := GiveTo(dir, owner); !given || err != nil {
			t.Fatalf("GiveTo: %t, %v, want true", given, err)
		}
		err := filepath.WalkDir(dir, func(path string, entry os.DirEntry, err error) error {
			if err != nil {
				return err
			}
			info, err := entry.Info()
			if err == nil && ownerOf(info) != owner {
				t.Errorf("%s belongs to %v, want %v", path, ownerOf(info), owner)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		if given, err := GiveTo(dir, owner); given || err != nil {
			t.Errorf("GiveTo a second time: %t, %v, want false", given, err)
		}
	}
	if info, err := os.Lstat(outside); err != nil || ownerOf(info) != (Owner{}) {
		t.Errorf("what a link leads to belongs to %v now, %v", ownerOf(info), err)
	}
}

func TestGiveToRefusesFoldersOfOthers(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "passwd"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := GiveTo(dir, Owner{65532, 65532}); !errors.Is(err, ErrNotACache) {
		t.Errorf("GiveTo: %v, want %v", err, ErrNotACache)
	}
}
