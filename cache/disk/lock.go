package disk

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// LockPath is the path of the lock file of a cache folder. It contains the process id of the
// owner, or of the latest one.
func LockPath(dir string) string { return filepath.Join(dir, "larder.lock") }

// acquire locks the folder for this process, until the returned file is closed or the
// process ends, however it ends. On a read-only disk without a lock file it locks the folder
// itself.
func acquire(dir string) (*os.File, error) {
	path := LockPath(dir)
	f, err := openOver(path, os.O_RDWR|os.O_CREATE, 0o640)
	if errors.Is(err, unix.EROFS) {
		if f, _, err = OpenRegular(path, os.O_RDONLY); err != nil {
			f, err = os.Open(dir)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("lock the cache folder: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		defer f.Close()
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		owner := make([]byte, 32)
		n, _ := f.ReadAt(owner, 0)
		return nil, fmt.Errorf("the cache folder %s is in use by process %s: stop that process, or choose another folder",
			dir, strings.TrimSpace(string(owner[:n])))
	}
	if f.Truncate(0) == nil {
		_, _ = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0) // on a full disk nobody is told who has the folder
	}
	return f, nil
}

// restoreLock locks the folder again if somebody removed the lock file. It fails if another
// process has the folder meanwhile.
func (f *Folder) restoreLock() error {
	held, err := f.lock.Stat()
	if err != nil {
		return err
	}
	if now, err := os.Lstat(LockPath(f.dir)); err == nil && os.SameFile(held, now) {
		return nil
	}
	lock, err := acquire(f.dir)
	if err != nil {
		return err
	}
	old := f.lock
	f.lock = lock
	return old.Close()
}
