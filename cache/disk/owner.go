package disk

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

// ErrNotACache is returned for a folder that is not empty and not a cache folder.
var ErrNotACache = errors.New("the folder is not empty, and not a cache folder")

// GiveTo creates the cache folder dir if it does not exist, and gives it with everything
// in it to owner, who can open it then. It reports whether it had to give anything. No
// process may have the cache open meanwhile. It needs the rights of root; so that it gives
// away nothing else, it returns [ErrNotACache] for a folder that cannot be a cache.
//
// It gives the folder itself last: if the folder has its owner, everything in it has. A
// call that was interrupted is completed by the next one.
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

// mayBeCache returns ErrNotACache unless the folder is a cache, or empty, or the root of an
// empty file system.
func mayBeCache(root *os.Root) error {
	lock := lockPath(".")
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
