package cache

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

// Owner is a user and a group, by their numbers.
type Owner struct {
	User, Group int
}

// ErrNotACache is returned for a folder that holds something, but no cache.
var ErrNotACache = errors.New("the folder is not empty, and no cache")

// GiveTo makes the cache folder dir if it is not there, and gives it with all
// that is in it to owner, who can [Open] it then. It reports whether there was
// anything to give. No process may have the cache open meanwhile. It needs the
// rights of root, and to give away only what can be a cache it returns
// [ErrNotACache] for other folders.
//
// The folder itself is given last: who owns it owns all of it, and a call that
// was broken off is carried on by the next one.
func GiveTo(dir string, owner Owner) (given bool, err error) {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return false, fmt.Errorf("make the cache folder: %w", err)
	}
	root, err := os.OpenRoot(dir) // no link in it leads out of it
	if err != nil {
		return false, err
	}
	defer root.Close()
	if is, err := root.Lstat("."); err != nil || ownerOf(is) == owner {
		return false, err
	}
	if err := mayBeCache(root); err != nil {
		return false, fmt.Errorf("give %s to user %d: %w", dir, owner.User, err)
	}
	err = fs.WalkDir(root.FS(), ".", func(path string, _ fs.DirEntry, err error) error {
		if err != nil || path == "." {
			return err
		}
		return root.Lchown(path, owner.User, owner.Group)
	})
	if err == nil {
		err = root.Chmod(".", 0o750)
	}
	if err == nil {
		err = root.Lchown(".", owner.User, owner.Group)
	}
	if err != nil {
		return false, fmt.Errorf("give %s to user %d: %w", dir, owner.User, err)
	}
	return true, nil
}

func ownerOf(info fs.FileInfo) Owner {
	stat := info.Sys().(*syscall.Stat_t) // as package os documents for Unix
	return Owner{int(stat.Uid), int(stat.Gid)}
}

// mayBeCache tells a cache, and an empty folder or file system, from others.
func mayBeCache(root *os.Root) error {
	lock := layout{dir: "."}.lock()
	if _, err := root.Lstat(lock); err == nil {
		return nil
	}
	entries, err := fs.ReadDir(root.FS(), ".")
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Name() != "lost+found" {
			return ErrNotACache
		}
	}
	return nil
}
