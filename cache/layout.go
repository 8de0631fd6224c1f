package cache

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

// layout is where things are in the cache folder. FORMAT.md describes it.
type layout struct {
	dir  string
	disk disk
}

func (l layout) lock() string    { return filepath.Join(l.dir, "larder.lock") }
func (l layout) index() string   { return filepath.Join(l.dir, "index") }
func (l layout) opening() string { return filepath.Join(l.dir, "index.opening") }
func (l layout) ballast() string { return filepath.Join(l.dir, "ballast") }

func (l layout) snapshot() string    { return filepath.Join(l.dir, "index.snapshot") }
func (l layout) newSnapshot() string { return filepath.Join(l.dir, "index.snapshot.new") }

// blob is the final place of a blob. The digest must be valid: it becomes part
// of a path.
func (l layout) blob(d digest.Digest) string {
	hex := d.Encoded()
	return filepath.Join(l.dir, "blobs", d.Algorithm().String(), hex[:2], hex)
}

type partialPaths struct{ data, journal string }

func (l layout) partial(d digest.Digest) partialPaths {
	base := filepath.Join(l.dir, "partial", d.Algorithm().String()+"-"+d.Encoded())
	return partialPaths{data: base, journal: base + journalSuffix}
}

const journalSuffix = ".journal"

// create makes the folders that are always there. It makes durable what they
// hold, whoever made that: a blob's name is worth nothing without that of its
// folder, and an earlier process may have been killed in between.
func (l layout) create() error {
	err := os.MkdirAll(filepath.Dir(l.dir), 0o750)
	for _, name := range []string{"", "blobs", "blobs/sha256", "blobs/sha512", "partial"} {
		if err == nil {
			err = l.disk.mkdir(filepath.Join(l.dir, name))
		}
		if errors.Is(err, fs.ErrExist) {
			err = nil
		}
	}
	for _, name := range []string{"", "blobs", "blobs/sha256", "blobs/sha512"} {
		if err == nil {
			err = l.disk.syncDir(filepath.Join(l.dir, name))
		}
	}
	if err != nil {
		return fmt.Errorf("create the cache folder: %w", err)
	}
	return nil
}

// sweep removes from partial/ what need not or cannot be resumed: one file of a
// pair without the other, both where the blob is complete, and what was being
// written in one go. A snapshot that is not whole goes too. What cannot be
// removed does no harm, and is left to the next start.
func (l layout) sweep(log *slog.Logger) error {
	dir := filepath.Join(l.dir, "partial")
	files, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	there := make(map[string]bool)
	for _, file := range files {
		if file.Type().IsRegular() {
			there[file.Name()] = true
		}
	}
	for name := range there {
		data := strings.TrimSuffix(name, journalSuffix)
		if there[data] && there[data+journalSuffix] && !l.complete(data) {
			continue
		}
		err = errors.Join(err, l.disk.remove(filepath.Join(dir, name)))
	}
	if _, missing := os.Lstat(l.newSnapshot()); missing == nil {
		err = errors.Join(err, l.disk.remove(l.newSnapshot()))
	}
	if err != nil {
		log.Warn("files that were left by a crash could not be removed", "error", err)
	}
	return nil
}

// complete reports whether the blob of a partial's data file is here.
func (l layout) complete(name string) bool {
	d := partialDigest(name)
	if d.Validate() != nil {
		return false
	}
	_, err := os.Lstat(l.blob(d))
	return err == nil
}

// partialDigest undoes what partial makes of a digest. It returns what is none
// for another file.
func partialDigest(name string) digest.Digest {
	return digest.Digest(strings.Replace(name, "-", ":", 1))
}

// tmpPrefix cannot begin the name of a partial: no digest algorithm has it.
const tmpPrefix = "put-"

// acquire takes the folder for this process, until the returned file is closed
// or the process ends, however it ends.
func (l layout) acquire() (*os.File, error) {
	f, err := os.OpenFile(l.lock(), os.O_RDWR|os.O_CREATE, 0o640)
	if err != nil {
		return nil, fmt.Errorf("lock the cache folder: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		defer f.Close()
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("lock %s: %w", l.lock(), err)
		}
		holder := make([]byte, 32)
		n, _ := f.ReadAt(holder, 0)
		return nil, fmt.Errorf("the cache folder %s is in use by process %s: stop it, or give this one another folder",
			l.dir, strings.TrimSpace(string(holder[:n])))
	}
	err = f.Truncate(0)
	if err == nil {
		_, err = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("write %s: %w", l.lock(), err), f.Close())
	}
	return f, nil
}

// publish moves a synced file to its final name, and makes the name durable:
// in the folder that holds it, and that folder's where it is new. Where that
// fails it leaves nothing there, if the disk lets it.
func (l layout) publish(from string, d digest.Digest) error {
	to := l.blob(d)
	dir := filepath.Dir(to)
	err := l.disk.mkdir(dir)
	switch {
	case err == nil:
		err = l.disk.syncDir(filepath.Dir(dir))
		if err != nil {
			err = errors.Join(err, l.disk.remove(dir)) // the next one is to try again
		}
	case errors.Is(err, fs.ErrExist):
		err = nil
	}
	if err != nil {
		return err
	}
	if err = l.disk.rename(from, to); err == nil {
		err = l.disk.syncDir(dir)
	}
	if err != nil {
		return errors.Join(err, l.disk.removeIfThere(to)) // nobody is to take it for durable
	}
	return nil
}

// CheckDigest is [digest.Digest.Validate], at a hundredth of its price for the
// digests that registries have.
func CheckDigest(d digest.Digest) error {
	const prefix, length = "sha256:", len("sha256:") + 64
	if len(d) != length || d[:len(prefix)] != prefix {
		return d.Validate()
	}
	for _, c := range []byte(d[len(prefix):]) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return d.Validate() // which says why
		}
	}
	return nil
}
