package disk

import (
	"crypto/rand"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Steps are the ways to change the cache folder: every change that may fail, or that
// a crash may come before or after, is one method. Two things do not go through it:
// the database under index/ writes its own files, and the text of the lock file has
// no meaning. Files are read as plain *os.File.
//
// The zero value works on the file system, at the cost of one nil check a step. Its
// methods may be called from several goroutines at once.
type Steps struct {
	// Around is for tests. It is called instead of each step, from many goroutines,
	// and takes the step by calling take, or does not. Its error is the step's.
	Around func(s Step, take func() error) error
}

// Step is one change to the folder.
type Step struct {
	Op   Op
	Path string
	To   string // the new path, of OpRename
	Flag int    // of OpCreate, as os.OpenFile defines it
	Off  int64  // of OpWrite; -1 appends to the previous write
	Size int64  // of OpTruncate and OpPreallocate, in bytes
	Data []byte // of OpWrite; valid until the step ends
}

// Op is the kind of a step.
type Op string

// The kinds of steps.
const (
	OpMkdir       Op = "mkdir"
	OpCreate      Op = "create"
	OpWrite       Op = "write"
	OpTruncate    Op = "truncate"
	OpPreallocate Op = "preallocate"
	OpSync        Op = "sync" // the content of a file
	OpRename      Op = "rename"
	OpRemove      Op = "remove"
	OpRemoveAll   Op = "remove all"
	OpSyncDir     Op = "sync folder" // the names in a folder
)

func (st Steps) do(s Step, take func() error) error {
	if st.Around == nil {
		return take()
	}
	return st.Around(s, take)
}

// Mkdir creates one folder with mode 0750.
func (st Steps) Mkdir(path string) error {
	return st.do(Step{Op: OpMkdir, Path: path}, func() error { return os.Mkdir(path, 0o750) })
}

// Create opens a file, and creates it if it does not exist. flag is added to
// os.O_CREATE. It replaces a link, a pipe, an empty folder or a device at the path.
func (st Steps) Create(path string, flag int, mode fs.FileMode) (f *os.File, err error) {
	err = st.do(Step{Op: OpCreate, Path: path, Flag: flag}, func() error {
		f, err = openOver(path, flag|os.O_CREATE, mode)
		return err
	})
	if err != nil && f != nil {
		return nil, errors.Join(err, f.Close()) // only a step of a test both happens and fails
	}
	return f, err
}

// tempPrefix begins the names of temporary files. No digest algorithm begins with it,
// so no partial download has such a name.
const tempPrefix = "put-"

// createTemp creates a file with a random name.
func (st Steps) createTemp(dir string) (*os.File, error) {
	return st.Create(filepath.Join(dir, tempPrefix+rand.Text()), os.O_RDWR|os.O_EXCL, 0o600)
}

// WriteAt writes all of b at an offset. Every byte that is fetched goes through it.
func (st Steps) WriteAt(f *os.File, b []byte, off int64) error {
	if st.Around == nil {
		_, err := f.WriteAt(b, off)
		return err
	}
	return st.Around(Step{Op: OpWrite, Path: f.Name(), Off: off, Data: b}, func() error {
		_, err := f.WriteAt(b, off)
		return err
	})
}

// Write appends b to what was written before.
func (st Steps) Write(f *os.File, b []byte) error {
	if st.Around == nil {
		_, err := f.Write(b)
		return err
	}
	return st.do(Step{Op: OpWrite, Path: f.Name(), Off: -1, Data: b}, func() error {
		_, err := f.Write(b)
		return err
	})
}

// Truncate sets the length of a file.
func (st Steps) Truncate(f *os.File, size int64) error {
	return st.do(Step{Op: OpTruncate, Path: f.Name(), Size: size}, func() error { return f.Truncate(size) })
}

// Preallocate takes the disk space for a file of size bytes where the file system can
// do that, and sets the file's length in any case.
func (st Steps) Preallocate(f *os.File, size int64) error {
	return st.do(Step{Op: OpPreallocate, Path: f.Name(), Size: size}, func() error { return preallocate(f, size) })
}

// Sync makes the content of a file durable.
func (st Steps) Sync(f *os.File) error {
	return st.do(Step{Op: OpSync, Path: f.Name()}, f.Sync)
}

// Rename renames a file, over an existing one if there is one.
func (st Steps) Rename(from, to string) error {
	return st.do(Step{Op: OpRename, Path: from, To: to}, func() error { return os.Rename(from, to) })
}

// Remove removes a file or an empty folder.
func (st Steps) Remove(path string) error {
	return st.do(Step{Op: OpRemove, Path: path}, func() error { return os.Remove(path) })
}

// RemoveIfExists is Remove for a file that may not exist.
func (st Steps) RemoveIfExists(path string) error { return IgnoreMissing(st.Remove(path)) }

// RemoveAll removes a folder and everything in it.
func (st Steps) RemoveAll(path string) error {
	return st.do(Step{Op: OpRemoveAll, Path: path}, func() error { return os.RemoveAll(path) })
}

// SyncDir makes the names in a folder durable.
func (st Steps) SyncDir(path string) error {
	return st.do(Step{Op: OpSyncDir, Path: path}, func() error {
		f, err := os.OpenFile(path, os.O_RDONLY|unix.O_DIRECTORY, 0) // to open a pipe may take for ever
		if err != nil {
			return err
		}
		return errors.Join(f.Sync(), f.Close())
	})
}

// IsMissing reports whether an error says that there is nothing at a path: fs.ErrNotExist, or
// that a folder above it is something else, or a link that leads nowhere.
func IsMissing(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP)
}

// IgnoreMissing returns nil for an error for which IsMissing is true, and any other error as
// it is.
func IgnoreMissing(err error) error {
	if IsMissing(err) {
		return nil
	}
	return err
}
