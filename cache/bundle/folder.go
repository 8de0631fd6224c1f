package bundle

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
)

// folder is a layout in a folder. The documents come first, so that a bundle that was
// unpacked reads like the bundle.
type folder struct {
	fsys      fs.FS
	documents []string // still to be looked for
	dirs      []string // folders of blobs, still to be listed
	entries   int

	dir     fs.ReadDirFile // the folder of blobs that is being listed, or nil
	dirName string
	file    fs.File // the one that Read reads, or nil
}

func openFolder(fsys fs.FS) *folder {
	return &folder{
		fsys:      fsys,
		documents: []string{layoutFile, indexFile, dockerFile, DescriptionFile, SignatureFile},
		dirs:      []string{"blobs/sha256", "blobs/sha512"},
	}
}

func (f *folder) next() (string, int64, error) {
	if err := f.leave(); err != nil {
		return "", 0, err
	}
	for len(f.documents) > 0 {
		name := f.documents[0]
		f.documents = f.documents[1:]
		if size, err := f.open(name); !errors.Is(err, fs.ErrNotExist) {
			return name, size, err
		}
	}
	for {
		if f.dir == nil {
			if len(f.dirs) == 0 {
				return "", 0, io.EOF
			}
			if err := f.list(); err != nil {
				return "", 0, err
			}
			continue
		}
		entries, err := f.dir.ReadDir(1) // the folder may have millions
		if len(entries) == 1 {
			name := path.Join(f.dirName, entries[0].Name())
			size, err := f.open(name)
			return name, size, err
		}
		if err != nil && err != io.EOF {
			return "", 0, err
		}
		if err := f.unlist(); err != nil {
			return "", 0, err
		}
	}
}

// list begins to list the next folder of blobs, if it is there.
func (f *folder) list() error {
	f.dirName, f.dirs = f.dirs[0], f.dirs[1:]
	info, err := fs.Lstat(f.fsys, f.dirName)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case !info.IsDir():
		return blame(f.dirName, errors.New("it is not a folder"))
	}
	dir, err := f.fsys.Open(f.dirName)
	if err != nil {
		return err
	}
	list, ok := dir.(fs.ReadDirFile)
	if !ok {
		return errors.Join(blame(f.dirName, errors.New("it cannot be listed")), dir.Close())
	}
	f.dir = list
	return nil
}

func (f *folder) unlist() error {
	if f.dir == nil {
		return nil
	}
	err := f.dir.Close()
	f.dir = nil
	return err
}

// open opens a file, and returns its size in bytes. It follows no link.
func (f *folder) open(name string) (int64, error) {
	info, err := fs.Lstat(f.fsys, name)
	if err != nil {
		return 0, err
	}
	f.entries++
	switch {
	case f.entries > maxEntries:
		return 0, blame(name, errTooMany)
	case !info.Mode().IsRegular():
		return 0, blame(name, fmt.Errorf("it is not a plain file, but %v", info.Mode()))
	}
	f.file, err = f.fsys.Open(name)
	return info.Size(), err
}

// leave closes the file that Read reads.
func (f *folder) leave() error {
	if f.file == nil {
		return nil
	}
	err := f.file.Close()
	f.file = nil
	return err
}

// Read reads the file that next opened.
func (f *folder) Read(p []byte) (int, error) {
	if f.file == nil {
		return 0, io.EOF
	}
	return f.file.Read(p)
}

func (f *folder) close() error { return errors.Join(f.leave(), f.unlist()) }
