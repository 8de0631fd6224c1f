package disk

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/opencontainers/go-digest"
)

// EachBlob visits the complete blobs after a given one, or all if after is "", in the
// order of their paths, until visit returns an error. It keeps the names of one folder
// at a time, a 256th of all, in memory. It skips a folder that cannot be read, and
// returns that error after it has visited the others.
func (f *Folder) EachBlob(after digest.Digest, visit func(digest.Digest, fs.FileInfo) error) error {
	var from string
	if after != "" {
		from = f.Blob(after)
	}
	var unread error // the first
	note := func(err error) {
		if unread == nil {
			unread = IgnoreMissing(err)
		}
	}
	err := filepath.WalkDir(filepath.Join(f.dir, "blobs"), func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			note(err)
			return nil
		}
		switch {
		case entry.IsDir() && path < from && !strings.HasPrefix(from, path+"/"):
			return fs.SkipDir
		case !entry.Type().IsRegular() || path <= from:
			return nil
		}
		d := digest.NewDigestFromEncoded(digest.Algorithm(filepath.Base(filepath.Dir(filepath.Dir(path)))), entry.Name())
		info, err := entry.Info()
		if err != nil {
			note(err)
			return nil
		}
		if isDigest := d.Validate() == nil; isDigest { // else it is not ours
			return visit(d, info)
		}
		return nil
	})
	return errors.Join(err, unread)
}

// HasBlobs reports whether the folder has at least one complete blob.
func (f *Folder) HasBlobs() (found bool) {
	_ = f.EachBlob("", func(digest.Digest, fs.FileInfo) error {
		found = true
		return fs.SkipAll
	})
	return found
}

// EachPartial visits the data files of partial downloads until visit returns an error. It
// skips those that disappear meanwhile: their fill has ended, or they were evicted.
func (f *Folder) EachPartial(visit func(digest.Digest, fs.FileInfo) error) error {
	entries, err := os.ReadDir(f.partials())
	if err != nil {
		return IgnoreMissing(err)
	}
	for _, entry := range entries {
		d := partialDigest(entry.Name())
		if d.Validate() != nil {
			continue // a journal
		}
		info, err := entry.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		if err := visit(d, info); err != nil {
			return err
		}
	}
	return nil
}
