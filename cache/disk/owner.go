package disk

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
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
	if is, err := root.Lstat("."); err != nil || OwnerOf(is) == owner {
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

// ErrNotEmpty is returned for a folder that has files and another owner.
var ErrNotEmpty = errors.New("the folder is not empty")

// GiveFolder is GiveTo for a folder that is not a cache, such as that of a key. It gives an empty
// folder alone: others return [ErrNotEmpty], unless the owner has them already.
func GiveFolder(dir string, owner Owner) (given bool, err error) {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return false, fmt.Errorf("make a folder for user %d: %w", owner.User, err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return false, err
	}
	defer root.Close()
	if is, err := root.Lstat("."); err != nil || OwnerOf(is) == owner {
		return false, err
	}
	entries, err := fs.ReadDir(root.FS(), ".")
	if err == nil && len(entries) > 0 {
		err = ErrNotEmpty
	}
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

// OwnerOf returns the owner of a file.
func OwnerOf(info fs.FileInfo) Owner {
	stat := info.Sys().(*syscall.Stat_t) // as package os documents for Unix
	return Owner{int(stat.Uid), int(stat.Gid)}
}

// checkOthers returns ErrNotACache for a folder that exists, and cannot be a cache.
func checkOthers(dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil // there is none, or what is wrong with it shows when it is used
	}
	defer root.Close()
	if err := mayBeCache(root); errors.Is(err, ErrNotACache) {
		return fmt.Errorf("use %s as the cache folder: %w: choose an empty folder, or one that does not exist", dir, err)
	}
	return nil
}

// mayBeCache returns ErrNotACache unless the folder is a cache, or empty, or the root of an
// empty file system. A cache may have lost some of its files, and a crash may have interrupted its
// creation.
func mayBeCache(root *os.Root) error {
	for _, name := range []string{LockPath("."), "larder.version", "blobs/sha256", "index.snapshot", "index/MANIFEST", "ballast"} {
		if _, err := root.Lstat(name); err == nil {
			return nil
		}
	}
	return fs.WalkDir(root.FS(), ".", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case path == ".":
			return nil
		case !d.IsDir(): // first, as SkipDir of a file skips the files after it too
			return ErrNotACache
		case path == "lost+found":
			return fs.SkipDir
		case !slices.Contains(created, path): // a crash leaves any of these
			return ErrNotACache
		}
		return nil
	})
}
