package cache

import (
	"crypto/rand"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// disk is how the store changes its folder: every step that a crash may come
// between, or that may fail, is one of its methods. The database under index/
// writes its own files, and the text of the lock file counts for nothing; all
// else goes through here. Reading does not: what is read is a plain *os.File.
//
// The zero value does what it says, at the cost of comparing a pointer with nil.
type disk struct {
	// around is for tests. It is called in place of each step, from many
	// goroutines, and takes the step, or not, by calling take. What it returns
	// is what the store sees.
	around func(s step, take func() error) error
}

// step is one change to the folder.
type step struct {
	op   op
	path string
	to   string // of a rename
	flag int    // of create, as os.OpenFile knows it
	off  int64  // of a write; -1 is where the last one ended
	size int64  // of truncate and preallocate
	data []byte // of a write; good until the step is over
}

type op string

const (
	opMkdir       op = "mkdir"
	opCreate      op = "create"
	opWrite       op = "write"
	opTruncate    op = "truncate"
	opPreallocate op = "preallocate"
	opSync        op = "sync" // a file's content
	opRename      op = "rename"
	opRemove      op = "remove"
	opRemoveAll   op = "remove all"
	opSyncDir     op = "sync folder" // the names in it
)

func (d disk) do(s step, take func() error) error {
	if d.around == nil {
		return take()
	}
	return d.around(s, take)
}

func (d disk) mkdir(path string) error {
	return d.do(step{op: opMkdir, path: path}, func() error { return os.Mkdir(path, 0o750) })
}

// create opens a file and makes it where there is none. flag is what else
// os.OpenFile is to know.
func (d disk) create(path string, flag int, mode fs.FileMode) (f *os.File, err error) {
	err = d.do(step{op: opCreate, path: path, flag: flag}, func() error {
		f, err = os.OpenFile(path, flag|os.O_CREATE, mode)
		return err
	})
	if err != nil && f != nil {
		return nil, errors.Join(err, f.Close()) // only a test's step both happens and fails
	}
	return f, err
}

// createTemp makes a file of a name that no other has.
func (d disk) createTemp(dir, prefix string) (*os.File, error) {
	return d.create(filepath.Join(dir, prefix+rand.Text()), os.O_RDWR|os.O_EXCL, 0o600)
}

// writeAt is on the way of every byte that is fetched.
func (d disk) writeAt(f *os.File, b []byte, off int64) error {
	if d.around == nil {
		_, err := f.WriteAt(b, off)
		return err
	}
	return d.around(step{op: opWrite, path: f.Name(), off: off, data: b}, func() error {
		_, err := f.WriteAt(b, off)
		return err
	})
}

// write goes behind what was written before.
func (d disk) write(f *os.File, b []byte) error {
	return d.do(step{op: opWrite, path: f.Name(), off: -1, data: b}, func() error {
		_, err := f.Write(b)
		return err
	})
}

func (d disk) truncate(f *os.File, size int64) error {
	return d.do(step{op: opTruncate, path: f.Name(), size: size}, func() error { return f.Truncate(size) })
}

func (d disk) preallocate(f *os.File, size int64) error {
	return d.do(step{op: opPreallocate, path: f.Name(), size: size}, func() error { return preallocate(f, size) })
}

func (d disk) sync(f *os.File) error {
	return d.do(step{op: opSync, path: f.Name()}, f.Sync)
}

func (d disk) rename(from, to string) error {
	return d.do(step{op: opRename, path: from, to: to}, func() error { return os.Rename(from, to) })
}

func (d disk) remove(path string) error {
	return d.do(step{op: opRemove, path: path}, func() error { return os.Remove(path) })
}

// removeIfThere is remove for what may be gone.
func (d disk) removeIfThere(path string) error { return ignoreMissing(d.remove(path)) }

func (d disk) removeAll(path string) error {
	return d.do(step{op: opRemoveAll, path: path}, func() error { return os.RemoveAll(path) })
}

func (d disk) syncDir(path string) error {
	return d.do(step{op: opSyncDir, path: path}, func() error {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		return errors.Join(f.Sync(), f.Close())
	})
}
