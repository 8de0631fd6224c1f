// Package cachetest checks a cache folder against cache/FORMAT.md. It reads the
// files and the index itself and shares no code with the store, so it does not
// repeat the store's mistakes.
package cachetest

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

// Check returns everything that is wrong in a folder that no process has open:
// content that does not match its name, files that start-up removes or that do
// not belong there, records that cannot be read or that contradict a file. After
// a crash a folder is in order once a store has opened and closed it.
func Check(dir string) error {
	if err := unowned(dir); err != nil {
		return err
	}
	sizes, err := blobs(dir)
	return errors.Join(err, names(dir), partials(dir, sizes), CheckSnapshot(dir), records(dir, sizes))
}

// CheckBlobs returns everything that is wrong with the blobs of a folder. They
// are in order at any time, also after a crash and while a store is open.
func CheckBlobs(dir string) error {
	_, err := blobs(dir)
	return err
}

// Usage is how many bytes the folder takes on disk, as du counts them. The
// folder may be in use.
func Usage(dir string) (int64, error) {
	var sum int64
	err := filepath.WalkDir(dir, func(_ string, entry fs.DirEntry, err error) error {
		if err != nil {
			return ignoreMissing(err)
		}
		info, err := entry.Info()
		if err != nil {
			return ignoreMissing(err)
		}
		if st, ok := info.Sys().(*syscall.Stat_t); ok {
			sum += st.Blocks * 512
		}
		return nil
	})
	return sum, err
}

// unowned fails if a process has the folder open.
func unowned(dir string) error {
	lock, err := os.Open(filepath.Join(dir, "larder.lock"))
	if err != nil {
		return fmt.Errorf("not a cache folder: %w", err)
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_SH|unix.LOCK_NB); err != nil {
		return fmt.Errorf("%s cannot be checked while a process has it open: %w", dir, err)
	}
	return nil
}

// names checks that the folder contains only what FORMAT.md lists and start-up
// does not remove.
func names(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, entry := range entries {
		want := fs.FileMode(0)
		switch name := entry.Name(); {
		case name == "larder.sock":
			want = fs.ModeSocket
		case name == "blobs", name == "partial", name == "index":
			want = fs.ModeDir
		case strings.HasPrefix(name, "index.broken-"):
			want = entry.Type() // it may have been anything
		case name == "larder.version", name == "larder.lock", name == "index.snapshot", name == "index.opening", name == "ballast":
		default:
			want = fs.ModeIrregular
		}
		if entry.Type() != want {
			errs = append(errs, fmt.Errorf("%s: it does not belong here", filepath.Join(dir, entry.Name())))
		}
	}
	return errors.Join(errs...)
}

// CheckSnapshot returns what is wrong with the snapshot of the index, if there is
// one: only its owner may read it, and it ends with the SHA-256 of the rest. Like
// blobs, it is in order at any time.
func CheckSnapshot(dir string) error {
	path := filepath.Join(dir, "index.snapshot")
	raw, err := os.ReadFile(path)
	if err != nil {
		return ignoreMissing(err)
	}
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	end := len(raw) - sha256.Size
	switch {
	case info.Mode().Perm() != 0o600:
		err = fmt.Errorf("its mode is %v", info.Mode())
	case !bytes.HasPrefix(raw, []byte("larder-snapshot 1\n")):
		err = errors.New("it has no header")
	case end < 0 || sha256.Sum256(raw[:end]) != [sha256.Size]byte(raw[end:]):
		err = errors.New("its checksum does not match")
	}
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// blobs checks everything under blobs/, and returns the sizes of the blobs.
func blobs(dir string) (map[digest.Digest]int64, error) {
	root := filepath.Join(dir, "blobs")
	sizes := make(map[digest.Digest]int64)
	var errs []error
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return ignoreMissing(err)
		}
		place, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return ignoreMissing(err)
		}
		var d digest.Digest
		if entry.IsDir() {
			err = folder(place, info)
		} else if d, err = blob(path, place, info); err == nil {
			sizes[d] = info.Size()
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, fmt.Errorf("%s: %w", path, err))
		}
		return nil
	})
	return sizes, errors.Join(append(errs, err)...)
}

// folder checks that a folder under blobs/ is blobs/<algorithm>[/<xx>].
func folder(place string, info fs.FileInfo) error {
	algorithm, xx, deep := strings.Cut(place, "/")
	isHex := len(xx) == 2 && strings.Trim(xx, "0123456789abcdef") == ""
	switch {
	case place != "." && !digest.Algorithm(algorithm).Available(), deep && !isHex:
		return errors.New("the folder does not belong here")
	case info.Mode().Perm()&^0o750 != 0:
		return fmt.Errorf("the folder's mode is %v", info.Mode())
	}
	return nil
}

// blob checks that a file is blobs/<algorithm>/<xx>/<hex>, and that its content
// matches its name. It returns fs.ErrNotExist if the file was removed meanwhile.
func blob(path, place string, info fs.FileInfo) (digest.Digest, error) {
	part := strings.Split(place, "/")
	if len(part) != 3 || !info.Mode().IsRegular() {
		return "", errors.New("the file does not belong here")
	}
	d := digest.NewDigestFromEncoded(digest.Algorithm(part[0]), part[2])
	if err := d.Validate(); err != nil {
		return "", err
	}
	switch {
	case !strings.HasPrefix(part[2], part[1]):
		return "", errors.New("its name does not begin with that of its folder")
	case info.Mode().Perm()&^0o640 != 0:
		return "", fmt.Errorf("its mode is %v", info.Mode())
	}
	file, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer file.Close()
	verifier := d.Verifier()
	if _, err := io.Copy(verifier, file); err != nil {
		return "", err
	}
	if !verifier.Verified() {
		return "", errors.New("its content does not match its name")
	}
	return d, nil
}

// partials checks that everything under partial/ is a pair of files of a blob
// that is not complete.
func partials(dir string, complete map[digest.Digest]int64) error {
	dir = filepath.Join(dir, "partial")
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	exists := make(map[string]bool)
	for _, entry := range entries {
		exists[entry.Name()] = entry.Type().IsRegular()
	}
	var errs []error
	for name := range exists {
		data, isJournal := strings.CutSuffix(name, ".journal")
		d := digest.Digest(strings.Replace(data, "-", ":", 1))
		_, done := complete[d]
		switch {
		case d.Validate() != nil || !exists[name]:
			err = errors.New("the file does not belong here")
		case !exists[data] || !exists[data+".journal"]:
			err = errors.New("its other file is missing")
		case done && !isJournal:
			err = errors.New("its blob is complete")
		default:
			continue
		}
		errs = append(errs, fmt.Errorf("%s: %w", filepath.Join(dir, name), err))
	}
	return errors.Join(errs...)
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
