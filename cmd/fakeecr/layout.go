package main

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/larder-registry/larder/upstream/ecrtest"
)

// layout is an OCI image layout. Its files are read in place, each time they are needed.
type layout struct {
	name  string // the repository of images that do not name one
	open  func(name string) (ecrtest.Content, error)
	close func() error
}

// openLayout opens a layout in a folder or a tar.
func openLayout(file string) (*layout, error) {
	info, err := os.Stat(file)
	if err != nil {
		return nil, err
	}
	absolute, err := filepath.Abs(file)
	if err != nil {
		return nil, err
	}
	name := strings.ToLower(strings.TrimSuffix(filepath.Base(absolute), ".tar"))
	if info.IsDir() {
		return &layout{
			name: name,
			open: func(name string) (ecrtest.Content, error) {
				return openFile(filepath.Join(file, filepath.FromSlash(name)))
			},
			close: func() error { return nil },
		}, nil
	}
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	entries, err := tarEntries(f)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &layout{
		name: name,
		open: func(name string) (ecrtest.Content, error) {
			if entry := entries[name]; entry != nil {
				return entry, nil
			}
			return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
		},
		close: f.Close,
	}, nil
}

// tarEntries returns the regular files in a tar, as sections of it.
func tarEntries(f *os.File) (map[string]*io.SectionReader, error) {
	entries := make(map[string]*io.SectionReader)
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		switch {
		case errors.Is(err, io.EOF):
			return entries, nil
		case errors.Is(err, tar.ErrHeader):
			return nil, errors.New("it is not a tar, or it is compressed; unpack it first")
		case err != nil:
			return nil, err
		}
		if h.Typeflag != tar.TypeReg {
			continue
		}
		// tar.Reader reads whole headers and nothing more, so that the file is positioned at the beginning of the entry.
		at, err := f.Seek(0, io.SeekCurrent)
		if err != nil {
			return nil, err
		}
		entries[path.Clean(h.Name)] = io.NewSectionReader(f, at, h.Size)
	}
}

// file is the content of a file. It is opened for each read, so that a folder of many blobs keeps no files open.
type file struct {
	path string
	size int64
}

func openFile(name string) (ecrtest.Content, error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	return file{name, info.Size()}, nil
}

func (c file) Size() int64 { return c.size }

func (c file) ReadAt(p []byte, off int64) (int, error) {
	f, err := os.Open(c.path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	return f.ReadAt(p, off)
}

// maxDocument is ECR's limit for manifests, in bytes. Other documents of a layout are smaller.
const maxDocument = 4 << 20

// read returns the content of a document.
func (l *layout) read(name string) ([]byte, error) {
	c, err := l.open(name)
	if err != nil {
		return nil, err
	}
	if c.Size() > maxDocument {
		return nil, fmt.Errorf("%s has %d bytes, more than the %d that ECR accepts", name, c.Size(), maxDocument)
	}
	return io.ReadAll(io.NewSectionReader(c, 0, c.Size()))
}

// blobPath returns the path of a blob in a layout.
func blobPath(dgst digest.Digest) (string, error) {
	if err := dgst.Validate(); err != nil {
		return "", fmt.Errorf("reading %q: %w", dgst, err)
	}
	return path.Join(ocispec.ImageBlobsDir, dgst.Algorithm().String(), dgst.Encoded()), nil
}
