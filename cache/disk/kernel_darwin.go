package disk

import (
	"os"

	"golang.org/x/sys/unix"
)

func isReadOnly(st *unix.Statfs_t) bool { return st.Flags&unix.MNT_RDONLY != 0 }

func blockSize(st *unix.Statfs_t) int64 { return int64(st.Bsize) }

// dropCached does nothing: macOS cannot forget parts of a file. A scrub there may read what
// is in memory rather than what is at rest.
func dropCached(*os.File, int64) {}

// BeginWriteback does nothing: macOS writes when it likes.
func BeginWriteback(*os.File, int64, int64) {}

// makeThreadIdle does nothing: reads have no priorities that a thread of Go could set for
// itself alone.
func makeThreadIdle() {}

// preallocate sets the size of a file. APFS has no holes to fill beforehand, so a full disk
// is met while the file is written.
func preallocate(f *os.File, size int64) error { return f.Truncate(size) }

func isReadErrno(errno unix.Errno) bool {
	switch errno {
	case unix.EIO, unix.ESTALE, unix.EILSEQ, unix.EBADMSG:
		return true
	}
	return false
}
