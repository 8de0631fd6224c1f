package disk

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Badger writes to memory-mapped files with holes. If the disk cannot fill a hole, the
// kernel ends the process with SIGBUS. So the index is only touched while the file
// system has free space for it. Three bounds, in bytes, ensure that.
const (
	// BlobReserve is what blobs leave free.
	BlobReserve = 64 << 20
	// IndexReserve must be free before the index is opened, written or closed. All of
	// its tables in memory are smaller.
	IndexReserve = 16 << 20
	// BallastSize is the size of a file that is removed when something else has filled
	// the disk and the index must be opened or closed.
	BallastSize = 32 << 20
)

// Free is how many bytes of the file system this process may take. The error is EROFS if
// the file system is read-only: the kernel makes it so when it finds it damaged.
func (f *Folder) Free() (int64, error) {
	st, err := statfs(f.dir)
	if err == nil && st.Flags&unix.ST_RDONLY != 0 {
		err = &fs.PathError{Op: "write", Path: f.dir, Err: unix.EROFS}
	}
	return int64(st.Bavail) * st.Bsize, err
}

func statfs(dir string) (st unix.Statfs_t, err error) {
	if err := unix.Statfs(dir, &st); err != nil {
		return st, &fs.PathError{Op: "statfs", Path: dir, Err: err}
	}
	return st, nil
}

// Size is the size in bytes of the file system that holds dir, or will hold it once dir
// is created.
func Size(dir string) (int64, error) {
	for {
		st, err := statfs(dir)
		if parent := filepath.Dir(dir); errors.Is(err, fs.ErrNotExist) && parent != dir {
			dir = parent
			continue
		}
		return int64(st.Blocks) * st.Bsize, err
	}
}

// CheckFree returns ENOSPC if less than keep bytes would be free after n more are
// written.
func (f *Folder) CheckFree(n, keep int64) error {
	free, err := f.Free()
	if err != nil {
		return err
	}
	if free-n < keep {
		return fmt.Errorf("%s has %d bytes free, of which %d are kept for the index, and %d are needed: %w",
			f.dir, free, keep, n, unix.ENOSPC)
	}
	return nil
}

// FreeForIndex ensures that there is space to open or close the index. It removes the
// ballast if that is necessary.
func (f *Folder) FreeForIndex() error {
	if f.CheckFree(0, IndexReserve) == nil {
		return nil
	}
	if err := f.RemoveIfExists(f.Ballast()); err != nil {
		return err
	}
	return f.CheckFree(0, IndexReserve)
}

// Ballast is the path of the ballast.
func (f *Folder) Ballast() string { return filepath.Join(f.dir, "ballast") }

// MakeBallast creates the ballast if it is missing and the disk has space for it.
func (f *Folder) MakeBallast() error {
	if info, err := os.Stat(f.Ballast()); err == nil && info.Size() == BallastSize {
		return nil
	}
	if err := f.CheckFree(BallastSize, BlobReserve); errors.Is(err, unix.ENOSPC) {
		return nil // a later start tries again
	}
	file, err := f.Create(f.Ballast(), os.O_WRONLY, 0o640)
	if err != nil {
		return err
	}
	return errors.Join(f.Preallocate(file, BallastSize), file.Close())
}

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
