package cache

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// space keeps the folder within its bounds: max_size counts everything in it,
// and min_free leaves room on the file system, which others use too. Bytes are
// taken before they are written. It is safe for concurrent use.
type space struct {
	layout layout
	most   int64 // bytes in the folder; 0 for any number
	free   int64 // bytes of the file system that stay free
	lax    bool  // most bounds the pins only: see Options.KeepAll

	mu       sync.Mutex // guards what follows; statfs under it, which takes a microsecond
	taken    int64      // by blobs and partials
	unplaced int64      // of these, not yet allocated on disk
	overhead int64      // all else, see layout.overhead, with what it may grow

	quota      int64     // what a quota leaves, if one was met; see confine
	quotaUntil time.Time // as long as that holds
}

// overheadSlack is how much the index may grow until it is measured again.
const overheadSlack = 16 << 20

// block is what file systems round files up to.
const block = 4 << 10

// onDisk is what a file of n bytes is charged.
func onDisk(n int64) int64 { return (n + block - 1) / block * block }

func newSpace(l layout, opts Options) *space {
	sp := &space{layout: l, most: opts.MaxSize, free: max(opts.MinFree, blobRoom), lax: opts.KeepAll}
	if sp.lax {
		sp.free = blobRoom
	}
	return sp
}

// bound is how much the folder may take at the moment; 0 for any number. The
// caller holds sp.mu.
func (sp *space) bound() int64 {
	switch {
	case sp.lax:
		return 0
	case sp.quota > 0 && (sp.most == 0 || sp.quota < sp.most) && time.Now().Before(sp.quotaUntil):
		return sp.quota
	}
	return sp.most
}

// take reserves n bytes. Where they do not fit it reserves nothing, and returns
// how many bytes must go first.
func (sp *space) take(n int64) (short int64, err error) {
	sp.mu.Lock()
	defer sp.mu.Unlock()
	left, err := sp.layout.free()
	if err != nil {
		return 0, err
	}
	short = sp.free - (left - sp.unplaced - n)
	if most := sp.bound(); most > 0 {
		short = max(short, sp.taken+sp.overhead+n-most)
	}
	if short > 0 {
		return short, nil
	}
	sp.taken += n
	sp.unplaced += n
	return 0, nil
}

// placed says that n of the bytes taken are allocated now, or will not be.
func (sp *space) placed(n int64) {
	sp.mu.Lock()
	defer sp.mu.Unlock()
	sp.unplaced -= n
}

// charge counts n bytes that are on disk already.
func (sp *space) charge(n int64) {
	sp.mu.Lock()
	defer sp.mu.Unlock()
	sp.taken += n
}

// give returns n bytes that are no longer on disk.
func (sp *space) give(n int64) { sp.charge(-n) }

// fits reports whether n bytes could be taken from an empty cache.
func (sp *space) fits(n int64) error {
	sp.mu.Lock()
	defer sp.mu.Unlock()
	if most := sp.bound(); most > 0 && n+sp.overhead > most {
		return boundError{fmt.Errorf("%d bytes do not fit into a cache of %d, of which %d are for the index: %w",
			n, most, sp.overhead, unix.ENOSPC)}
	}
	return nil
}

// above is by how many bytes the folder is above a part of max_size, or the
// file system below min_free. Of what is pinned all may stay: the part is one of
// the rest.
func (sp *space) above(part float64, pinned int64) (int64, error) {
	sp.mu.Lock()
	defer sp.mu.Unlock()
	left, err := sp.layout.free()
	if err != nil {
		return 0, err
	}
	over := sp.free - left
	if most := sp.bound(); most > 0 {
		over = max(over, sp.taken+sp.overhead-pinned-int64(part*float64(most-pinned)))
	}
	return over, nil
}

// lack is by how many bytes the file system is below min_free.
func (sp *space) lack() (int64, error) {
	left, err := sp.layout.free()
	return sp.free - left, err
}

// measure brings what the folder takes beside blobs and partials up to date.
func (sp *space) measure() error {
	sum, err := sp.layout.overhead()
	if err != nil {
		return err
	}
	sp.mu.Lock()
	defer sp.mu.Unlock()
	sp.overhead = sum + overheadSlack
	return nil
}

// overhead is what everything but blobs and partials takes on disk: the index, one
// that was set aside, the snapshot, the ballast, and the names in the folders.
func (l layout) overhead() (int64, error) {
	entries, err := os.ReadDir(l.dir)
	if err != nil {
		return 0, err
	}
	sum := int64(ballastSize) // whether it is there or not
	for _, entry := range entries {
		var n int64
		switch path := filepath.Join(l.dir, entry.Name()); entry.Name() {
		case "blobs", "partial":
			n, err = folderUsage(path, 2)
		case filepath.Base(l.ballast()), filepath.Base(l.newSnapshot()): // the latter takes its space as it grows
		default:
			n, err = diskUsage(path)
			if errors.Is(err, fs.ErrPermission) { // not ours, such as lost+found
				err = nil
			}
		}
		if err != nil {
			return 0, err
		}
		sum += n
	}
	return sum, nil
}

// folderUsage is what a folder, and those that are so much deeper, take for the
// names in them: with a million blobs that is some 80 MB of ext4.
func folderUsage(dir string, deeper int) (int64, error) {
	info, err := os.Lstat(dir)
	if err != nil {
		return 0, ignoreMissing(err)
	}
	sum := blocks(info)
	if deeper == 0 {
		return sum, nil
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return 0, ignoreMissing(err)
	}
	for _, entry := range entries {
		if !entry.IsDir() {
			continue
		}
		n, err := folderUsage(filepath.Join(dir, entry.Name()), deeper-1)
		if err != nil {
			return 0, err
		}
		sum += n
	}
	return sum, nil
}

// size is what the folder takes.
func (sp *space) size() int64 {
	sp.mu.Lock()
	defer sp.mu.Unlock()
	return sp.taken + sp.overhead - overheadSlack
}
