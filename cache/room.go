package cache

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Badger writes to memory-mapped files with holes. Where the disk cannot fill a
// hole the kernel ends the process with SIGBUS, so the index is only touched
// while the file system has room for it. Three bounds, in bytes, see to that:
const (
	// blobRoom is what blobs leave free.
	blobRoom = 64 << 20
	// indexRoom must be free for the index to be opened, written or closed. All
	// of its tables in memory are smaller.
	indexRoom = 16 << 20
	// ballastSize is the size of a file that is given up when something else
	// has filled the disk and the index must be opened or closed.
	ballastSize = 32 << 20
)

// free is how many bytes of the file system this process may take. It is an
// error, EROFS, where the file system is read-only: the kernel makes it so when
// it finds it damaged.
func (l layout) free() (int64, error) {
	st, err := l.statfs()
	if err == nil && st.Flags&unix.ST_RDONLY != 0 {
		err = &fs.PathError{Op: "write", Path: l.dir, Err: unix.EROFS}
	}
	return int64(st.Bavail) * st.Bsize, err
}

func (l layout) statfs() (st unix.Statfs_t, err error) {
	if err := unix.Statfs(l.dir, &st); err != nil {
		return st, &fs.PathError{Op: "statfs", Path: l.dir, Err: err}
	}
	return st, nil
}

// DiskSize is the size in bytes of the file system that holds dir, or will once
// dir is created.
func DiskSize(dir string) (int64, error) {
	for {
		st, err := layout{dir: dir}.statfs()
		if parent := filepath.Dir(dir); errors.Is(err, fs.ErrNotExist) && parent != dir {
			dir = parent
			continue
		}
		return int64(st.Blocks) * st.Bsize, err
	}
}

// room returns ENOSPC where n more bytes would not leave keep bytes free.
func (l layout) room(n, keep int64) error {
	free, err := l.free()
	if err != nil {
		return err
	}
	if free-n < keep {
		return fmt.Errorf("%s has %d bytes free, of which %d are kept for the index, and %d are needed: %w",
			l.dir, free, keep, n, unix.ENOSPC)
	}
	return nil
}

// makeRoom sees to it that the index can be opened or closed.
func (l layout) makeRoom() error {
	if l.room(0, indexRoom) == nil {
		return nil
	}
	if err := l.disk.removeIfThere(l.ballast()); err != nil {
		return err
	}
	return l.room(0, indexRoom)
}

// takeBallast makes the ballast where it is missing and the disk has room.
func (l layout) takeBallast() error {
	if info, err := os.Stat(l.ballast()); err == nil && info.Size() == ballastSize {
		return nil
	}
	if err := l.room(ballastSize, blobRoom); errors.Is(err, unix.ENOSPC) {
		return nil // at a later start
	}
	f, err := l.disk.create(l.ballast(), os.O_WRONLY, 0o640)
	if err != nil {
		return err
	}
	return errors.Join(l.disk.preallocate(f, ballastSize), f.Close())
}

// preallocate takes the disk space for a file of size bytes, where the file
// system can; it sets the file's length in any case.
func preallocate(f *os.File, size int64) error {
	for {
		err := unix.Fallocate(int(f.Fd()), 0, 0, size)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, unix.EINTR): // some file systems stop for a signal
		case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENOSYS):
			return f.Truncate(size)
		default:
			return &fs.PathError{Op: "preallocate", Path: f.Name(), Err: err}
		}
	}
}
