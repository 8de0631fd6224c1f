package disk

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

// Folder is the cache folder of this process. FORMAT.md describes what is in it. Its
// methods may be called from several goroutines at once.
type Folder struct {
	Steps

	dir string
	log *slog.Logger

	restoring sync.Mutex // locked while folders are made again, during I/O; guards lock
	lock      *os.File
}

// Open takes the folder dir for this process, and creates it if it does not exist. It
// fails if another process has the folder, and names that process; if a newer Larder made
// the folder; and with [ErrNotACache] if it has files of others. It removes what a crash left behind. A read-only disk may have
// the folder already.
func Open(dir string, steps Steps, log *slog.Logger) (*Folder, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("find the cache folder: %w", err)
	}
	f := &Folder{Steps: steps, dir: dir, log: log}
	if err := checkOthers(dir); err != nil {
		return nil, err
	}
	if err := f.create(); errors.Is(err, fs.ErrPermission) {
		return nil, fmt.Errorf("%w: as root, give the folder to the daemon's user with \"larder prepare\", or choose another with --cache-dir", err)
	} else if err != nil {
		return nil, err
	}
	if f.lock, err = acquire(dir); err != nil {
		return nil, err
	}
	err = f.checkVersion()
	if err == nil {
		err = f.sweep()
	}
	if err != nil {
		return nil, errors.Join(err, f.lock.Close())
	}
	return f, nil
}

// At returns a Folder that tells paths. It does not own the folder dir, which need not
// exist.
func At(dir string) *Folder { return &Folder{dir: dir} }

// Close gives the folder up. Another process can open it afterwards.
func (f *Folder) Close() error {
	f.restoring.Lock()
	defer f.restoring.Unlock()
	return f.lock.Close()
}

// Dir is the absolute path of the folder.
func (f *Folder) Dir() string { return f.dir }

// Index is the folder of the index.
func (f *Folder) Index() string { return filepath.Join(f.dir, "index") }

// IndexOpening is the file that counts attempts to open the index.
func (f *Folder) IndexOpening() string { return filepath.Join(f.dir, "index.opening") }

// Snapshot is the snapshot of the index.
func (f *Folder) Snapshot() string { return filepath.Join(f.dir, "index.snapshot") }

// NewSnapshot is the file that becomes the next snapshot.
func (f *Folder) NewSnapshot() string { return filepath.Join(f.dir, "index.snapshot.new") }

// Blob is the final path of a blob. The digest must be valid: it becomes part of a
// path.
func (f *Folder) Blob(d digest.Digest) string {
	hex := d.Encoded()
	return filepath.Join(f.dir, "blobs", d.Algorithm().String(), hex[:2], hex)
}

// PartialPaths are the two files of a blob that is not complete yet.
type PartialPaths struct{ Data, Journal string }

// Partial returns the paths of a partial download. The digest must be valid.
func (f *Folder) Partial(d digest.Digest) PartialPaths {
	base := filepath.Join(f.partials(), d.Algorithm().String()+"-"+d.Encoded())
	return PartialPaths{Data: base, Journal: base + journalSuffix}
}

const journalSuffix = ".journal"

func (f *Folder) partials() string { return filepath.Join(f.dir, "partial") }

// partialDigest is the digest of a partial download by the name of its data file. It is
// not valid for any other file.
func partialDigest(name string) digest.Digest {
	return digest.Digest(strings.Replace(name, "-", ":", 1))
}

// created are the folders in a new cache, each after the one that it is in.
var created = []string{"blobs", "blobs/sha256", "blobs/sha512", "partial"}

// create makes the folders that always exist, and makes their names durable, even if an
// earlier process made them: the name of a blob is lost with the name of its folder, and
// that process may have been killed before it synced. On a read-only disk it makes nothing.
func (f *Folder) create() error {
	err := os.MkdirAll(filepath.Dir(f.dir), 0o750)
	for _, name := range append([]string{""}, created...) {
		if err == nil {
			err = f.makeDir(filepath.Join(f.dir, name))
		}
		if errors.Is(err, fs.ErrExist) {
			err = nil
		}
	}
	for _, name := range []string{"", "blobs", "blobs/sha256", "blobs/sha512"} {
		if err == nil {
			err = f.SyncDir(filepath.Join(f.dir, name))
		}
	}
	if _, missing := os.Stat(f.dir); errors.Is(err, unix.EROFS) && missing == nil {
		err = nil
	}
	if err != nil {
		return fmt.Errorf("create the cache folder: %w", err)
	}
	return nil
}

// makeDir is Mkdir. It replaces a file, a link that does not lead to a folder, or anything else
// that is no folder.
func (f *Folder) makeDir(path string) error {
	err := f.Mkdir(path)
	if !errors.Is(err, fs.ErrExist) || path == f.dir {
		return err
	}
	if info, unknown := os.Stat(path); unknown == nil && info.IsDir() || unknown != nil && !IsMissing(unknown) {
		return err
	}
	if err := f.Remove(path); err != nil {
		return err
	}
	return f.Mkdir(path)
}

// Restore makes the folders again that always exist, after somebody removed or replaced them
// while this process has the cache folder.
func (f *Folder) Restore() error {
	f.restoring.Lock()
	defer f.restoring.Unlock()
	err := f.create()
	if err == nil {
		err = f.restoreLock()
	}
	if err != nil {
		return fmt.Errorf("make removed folders again: %w", err)
	}
	f.log.Warn("folders of the cache were removed while it is in use; they were made again", "folder", f.dir)
	return nil
}

// sweep removes from partial/ what need not or cannot be resumed: one file of a pair
// without the other, both files of a blob that is complete, and temporary files. It
// also removes an unfinished snapshot. What cannot be removed does no harm; the next
// start tries again.
func (f *Folder) sweep() error {
	files, err := os.ReadDir(f.partials())
	if err != nil {
		return IgnoreMissing(err)
	}
	exists := make(map[string]bool)
	for _, file := range files {
		if file.Type().IsRegular() {
			exists[file.Name()] = true
		}
	}
	for name := range exists {
		data := strings.TrimSuffix(name, journalSuffix)
		if exists[data] && exists[data+journalSuffix] && !f.isComplete(data) {
			continue
		}
		err = errors.Join(err, f.Remove(filepath.Join(f.partials(), name)))
	}
	if _, missing := os.Lstat(f.NewSnapshot()); missing == nil {
		err = errors.Join(err, f.Remove(f.NewSnapshot()))
	}
	if err != nil {
		f.log.Warn("files that a crash left behind could not be removed", "error", err)
	}
	return nil
}

// isComplete reports whether the blob of a partial download's data file exists.
func (f *Folder) isComplete(name string) bool {
	d := partialDigest(name)
	if d.Validate() != nil {
		return false
	}
	_, err := os.Lstat(f.Blob(d))
	return err == nil
}

// Publish moves a synced file to the final path of a blob, and makes the name durable:
// in the folder that holds it, and in that folder's parent if the folder is new. If it
// fails it leaves nothing at the final path, as far as the disk allows.
func (f *Folder) Publish(from string, d digest.Digest) error {
	to := f.Blob(d)
	dir := filepath.Dir(to)
	err := f.makeDir(dir)
	if IsMissing(err) && f.Restore() == nil {
		err = f.makeDir(dir)
	}
	switch {
	case err == nil:
		err = f.SyncDir(filepath.Dir(dir))
		if err != nil {
			err = errors.Join(err, f.Remove(dir)) // so that the next Publish syncs again
		}
	case errors.Is(err, fs.ErrExist):
		err = nil
	}
	if err != nil {
		return err
	}
	if err = f.Replace(from, to); err == nil {
		err = f.SyncDir(dir)
	}
	if err != nil {
		return errors.Join(err, f.RemoveIfExists(to)) // it is not durable, so it must not be seen
	}
	return nil
}

// Replace renames a file over another one, or over an empty folder, which rename(2) does not.
func (f *Folder) Replace(from, to string) error {
	err := f.Rename(from, to)
	if info, missing := os.Lstat(to); err == nil || missing != nil || !info.IsDir() {
		return err
	}
	if err := f.Remove(to); err != nil {
		return err
	}
	return f.Rename(from, to)
}

// WriteBlob writes a small blob in one go. When it returns, the blob survives a crash.
// The file has mode 0600, which marks manifests.
func (f *Folder) WriteBlob(d digest.Digest, content []byte) error {
	tmp, err := f.createTemp(f.partials())
	if err != nil {
		return err
	}
	err = f.Write(tmp, content)
	if err == nil {
		err = f.Sync(tmp)
	}
	err = errors.Join(err, tmp.Close())
	if err == nil {
		err = f.Publish(tmp.Name(), d)
	}
	if err != nil {
		return errors.Join(err, f.RemoveIfExists(tmp.Name()))
	}
	return nil
}

// probeSize is how many bytes the disk must take to count as healthy.
const probeSize = 64 << 10

// Probe writes a small file, as WriteBlob does, and removes it.
func (f *Folder) Probe() error {
	file, err := f.createTemp(f.partials())
	if err != nil {
		return err
	}
	err = f.Write(file, make([]byte, probeSize))
	if err == nil {
		err = f.Sync(file)
	}
	return errors.Join(err, file.Close(), f.Remove(file.Name()))
}
