package disk

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// BlockSize is what file systems round the size of a file up to.
const BlockSize = 4 << 10

const (
	// mapped is how many bytes of a large file count for one block of the map from the file to its places on disk. ext4
	// has one such block for up to 340 extents (kernel documentation, "Extent Tree").
	mapped = 128 << 20
	// largeFile is the size in bytes from which on a file may need that map: ext4 keeps the first four extents in the
	// inode, and a file that was written in segments has more.
	largeFile = 16 << 20
)

// Charge is how many bytes of the bound a file of n bytes counts for: n rounded up to
// whole blocks, and for a large file the blocks that say where it is on disk.
func Charge(n int64) int64 {
	charge := wholeBlocks(n)
	if n >= largeFile {
		charge += (n/mapped + 1) * BlockSize
	}
	return charge
}

func wholeBlocks(n int64) int64 { return (n + BlockSize - 1) / BlockSize * BlockSize }

// ChargeOf is Charge for an existing file, which may have more blocks than its length
// needs.
func ChargeOf(info fs.FileInfo) int64 {
	return max(wholeBlocks(blocks(info)), Charge(info.Size()))
}

// overhead is what everything but blobs and partials takes on disk: the index, a broken
// index that was set aside, the snapshot, the ballast, and the names in the folders.
func (f *Folder) overhead() (int64, error) {
	entries, err := os.ReadDir(f.dir)
	if err != nil {
		return 0, err
	}
	sum := int64(BallastSize) // whether it exists or not
	for _, entry := range entries {
		var n int64
		switch path := filepath.Join(f.dir, entry.Name()); entry.Name() {
		case "blobs", "partial":
			n, err = namesUsage(path, 2)
		case filepath.Base(f.Ballast()), filepath.Base(f.NewSnapshot()): // a new snapshot reserves its space as it grows
		default:
			n, err = Usage(path)
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

// namesUsage is what a folder takes on disk for the names in it, with its subfolders down
// to the given depth. With a million blobs that is some 80 MB of ext4.
func namesUsage(dir string, depth int) (int64, error) {
	info, err := os.Lstat(dir)
	if err != nil {
		return 0, IgnoreMissing(err)
	}
	sum := blocks(info)
	if depth == 0 || !info.IsDir() {
		return sum, nil
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return 0, IgnoreMissing(err)
	}
	for _, entry := range entries {
		if !entry.IsDir() {
			continue
		}
		n, err := namesUsage(filepath.Join(dir, entry.Name()), depth-1)
		if err != nil {
			return 0, err
		}
		sum += n
	}
	return sum, nil
}

// Usage is what the files below a folder take on disk, in bytes.
func Usage(dir string) (int64, error) {
	var sum int64
	err := filepath.WalkDir(dir, func(_ string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return IgnoreMissing(err)
		}
		info, err := entry.Info()
		if err != nil {
			return IgnoreMissing(err)
		}
		sum += blocks(info)
		return nil
	})
	return sum, err
}

// blocks is what the file system has allocated for a file or folder, in bytes.
func blocks(info fs.FileInfo) int64 {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return st.Blocks * 512
	}
	return 0
}
