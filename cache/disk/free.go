package disk

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
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

// Files need inodes too, of which some file systems have a fixed number. If there is none
// left, Badger tries again and again to create its next table, and its callers wait.
const (
	// indexFiles must be free before the index is opened, written or closed: more than it
	// creates at once.
	indexFiles = 16
	// blobFiles is what blobs leave free, but no more than a twentieth of all.
	blobFiles = 1024
	// FilesPerBlob is how many files a new blob may need: itself, its journal, its folder.
	FilesPerBlob = 3
)

// Amount is space on a file system: bytes, and files of any size.
type Amount struct {
	Bytes, Files int64
}

// IsPositive reports whether it is more than nothing of either kind.
func (a Amount) IsPositive() bool { return a.Bytes > 0 || a.Files > 0 }

// Within reports whether it is no more than another amount, of both kinds.
func (a Amount) Within(b Amount) bool { return a.Bytes <= b.Bytes && a.Files <= b.Files }

// AtLeastNone is the amount with 0 in place of negative numbers.
func (a Amount) AtLeastNone() Amount { return Amount{max(a.Bytes, 0), max(a.Files, 0)} }

// String is for errors.
func (a Amount) String() string { return fmt.Sprintf("%d bytes and %d files", a.Bytes, a.Files) }

// Free is how many bytes of the file system this process may take. The error is EROFS if
// the file system is read-only: the kernel makes it so when it finds it damaged.
func (f *Folder) Free() (int64, error) {
	free, _, err := f.free()
	return free.Bytes, err
}

// free is what this process may take of the file system, and how many files blobs must leave
// free. Both numbers of files are of no consequence on a file system without a fixed number
// of inodes, such as btrfs, which reports 0 in all (statfs(2)).
func (f *Folder) free() (free Amount, keepFiles int64, err error) {
	st, err := statfs(f.dir)
	if err == nil && isReadOnly(&st) {
		err = &fs.PathError{Op: "write", Path: f.dir, Err: unix.EROFS}
	}
	free = Amount{int64(st.Bavail) * blockSize(&st), math.MaxInt64}
	if st.Files > 0 {
		free.Files = int64(min(st.Ffree, math.MaxInt64))
		keepFiles = max(int64(min(st.Files/20, blobFiles)), 2*indexFiles)
	}
	return free, keepFiles, err
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
		if errors.Is(err, unix.ENOTDIR) {
			err = fmt.Errorf("%w: a part of this path is a file: choose another folder with --cache-dir", err)
		}
		if parent := filepath.Dir(dir); errors.Is(err, fs.ErrNotExist) && parent != dir {
			dir = parent
			continue
		}
		return int64(st.Blocks) * blockSize(&st), err
	}
}

// CheckFree returns ENOSPC if less than keep bytes would be free after n more are
// written, or if the file system has no inodes for the index.
func (f *Folder) CheckFree(n, keep int64) error {
	free, _, err := f.free()
	switch {
	case err != nil:
		return err
	case free.Bytes-n < keep:
		return f.full(fmt.Errorf("of %d bytes that are free %d are kept for the index, and %d are needed: %w", free.Bytes, keep, n, unix.ENOSPC))
	case free.Files < indexFiles:
		return f.full(fmt.Errorf("%d inodes are free, and the index needs %d: %w", free.Files, indexFiles, unix.ENOSPC))
	}
	return nil
}

// full is the error of a write for which the folder has no space. The path is apart from the
// text, so that it can be kept from clients.
func (f *Folder) full(reason error) error {
	return &fs.PathError{Op: "write", Path: f.dir, Err: reason}
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
	if info, err := os.Lstat(f.Ballast()); err == nil && info.Mode().IsRegular() && info.Size() == BallastSize {
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
