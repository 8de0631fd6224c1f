package disk

import (
	"errors"
	"io/fs"
	"os"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

// errIrregular says that there is something else than a file at a path.
var errIrregular = errors.New("not a regular file")

// nowhereElse keeps an open(2) from waiting for the other end of a pipe, and from following
// a link out of the folder. It has no effect on regular files.
const nowhereElse = unix.O_NONBLOCK | unix.O_NOFOLLOW

// OpenRegular opens a file of the cache folder; flag is that of os.OpenFile. It never waits,
// whatever is at the path: anything but a regular file is an error.
func OpenRegular(path string, flag int) (*os.File, fs.FileInfo, error) {
	return openRegular(path, flag, 0)
}

func openRegular(path string, flag int, mode fs.FileMode) (*os.File, fs.FileInfo, error) {
	f, err := os.OpenFile(path, flag|nowhereElse, mode)
	if err != nil {
		return nil, nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = &fs.PathError{Op: "open", Path: path, Err: errIrregular}
	}
	if err != nil {
		return nil, nil, errors.Join(err, f.Close())
	}
	return f, info, nil
}

// isIrregular reports whether an error of openRegular says that there is something else than a
// file: open(2) has EISDIR for folders, ELOOP for links, and ENXIO for pipes and sockets.
func isIrregular(err error) bool {
	return errors.Is(err, errIrregular) || errors.Is(err, unix.EISDIR) || errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENXIO)
}

// openOver is openRegular. It removes anything but a file, unless that is a folder with
// something in it.
func openOver(path string, flag int, mode fs.FileMode) (*os.File, error) {
	f, _, err := openRegular(path, flag, mode)
	if isIrregular(err) && os.Remove(path) == nil {
		f, _, err = openRegular(path, flag, mode)
	}
	return f, err
}

// IsReadError reports whether an error says that the disk, or a network file system, cannot
// give a file's bytes. Sockets have no such errors, so it also tells which side of a copy has
// failed.
func IsReadError(err error) bool {
	errno, ok := errors.AsType[unix.Errno](err)
	return ok && isReadErrno(errno)
}

// OpenBlob opens the file of a complete blob to be read: see [OpenRegular]. The digest must
// be valid.
func (f *Folder) OpenBlob(d digest.Digest) (*os.File, fs.FileInfo, error) {
	return OpenRegular(f.Blob(d), os.O_RDONLY)
}

// StatBlob returns the size of the file of a complete blob, and fs.ErrNotExist if there is
// no regular file. The digest must be valid.
func (f *Folder) StatBlob(d digest.Digest) (int64, error) {
	path := f.Blob(d)
	info, err := os.Lstat(path)
	switch {
	case err != nil:
		return 0, err
	case !info.Mode().IsRegular():
		return 0, &fs.PathError{Op: "stat", Path: path, Err: fs.ErrNotExist}
	}
	return info.Size(), nil
}
