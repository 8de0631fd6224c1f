// Package cachetest checks a cache folder against cache/FORMAT.md. It reads the
// files and the index by itself, and shares no code with the store, so that a
// mistake there is not repeated here.
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

// Check returns everything that must not be in a folder whose owner has closed
// it: content that does not match its name, files that start-up removes or that
// have no place, records that cannot be read or that contradict a file. A folder
// that a crash left is in order once a store was opened on it, and closed.
func Check(dir string) error {
	if err := unowned(dir); err != nil {
		return err
	}
	sizes, err := blobs(dir)
	return errors.Join(err, names(dir), partials(dir, sizes), CheckSnapshot(dir), records(dir, sizes))
}

// CheckBlobs returns what is wrong with the blobs of a folder. Unlike all else,
// they are in order at any time: after a crash too, and while a store is open.
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

// unowned fails where a process has the folder.
func unowned(dir string) error {
	lock, err := os.Open(filepath.Join(dir, "larder.lock"))
	if err != nil {
		return fmt.Errorf("not a cache folder: %w", err)
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_SH|unix.LOCK_NB); err != nil {
		return fmt.Errorf("%s is to be checked when nobody has it open: %w", dir, err)
	}
	return nil
}

// names checks that nothing is in the folder that FORMAT.md does not list, or that
// start-up removes.
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
			want = entry.Type() // of whatever was there
		case name == "larder.version", name == "larder.lock", name == "index.snapshot", name == "index.opening", name == "ballast":
		default:
			want = fs.ModeIrregular
		}
		if entry.Type() != want {
			errs = append(errs, fmt.Errorf("%s: this has no place here", filepath.Join(dir, entry.Name())))
		}
	}
	return errors.Join(errs...)
}

// CheckSnapshot returns what is wrong with the snapshot of the index, if there is
// one: it must be for its owner only, and end with the SHA-256 of all before.
// Like blobs, it is in order at any time.
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
		err = errors.New("it does not say what it is")
	case end < 0 || sha256.Sum256(raw[:end]) != [sha256.Size]byte(raw[end:]):
		err = errors.New("it is not whole")
	}
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// blobs checks everything under blobs/, and returns the sizes of what is there.
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
		return errors.New("this folder has no place here")
	case info.Mode().Perm()&^0o750 != 0:
		return fmt.Errorf("the folder's mode is %v", info.Mode())
	}
	return nil
}

// blob checks that a file is blobs/<algorithm>/<xx>/<hex>, and is what it is
// called. It returns fs.ErrNotExist for one that is gone meanwhile.
func blob(path, place string, info fs.FileInfo) (digest.Digest, error) {
	part := strings.Split(place, "/")
	if len(part) != 3 || !info.Mode().IsRegular() {
		return "", errors.New("this file has no place here")
	}
	d := digest.NewDigestFromEncoded(digest.Algorithm(part[0]), part[2])
	if err := d.Validate(); err != nil {
		return "", err
	}
	switch {
	case !strings.HasPrefix(part[2], part[1]):
		return "", errors.New("it is in another's folder")
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

// partials checks that whatever is under partial/ is a pair of files, of a blob
// that is not there.
func partials(dir string, complete map[digest.Digest]int64) error {
	dir = filepath.Join(dir, "partial")
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	there := make(map[string]bool)
	for _, entry := range entries {
		there[entry.Name()] = entry.Type().IsRegular()
	}
	var errs []error
	for name := range there {
		data, isJournal := strings.CutSuffix(name, ".journal")
		d := digest.Digest(strings.Replace(data, "-", ":", 1))
		_, done := complete[d]
		switch {
		case d.Validate() != nil || !there[name]:
			err = errors.New("this file has no place here")
		case !there[data] || !there[data+".journal"]:
			err = errors.New("it was left without its twin")
		case done && !isJournal:
			err = errors.New("it was left, though the blob is complete")
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
