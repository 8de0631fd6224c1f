package disk

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

func isReadOnly(st *unix.Statfs_t) bool { return st.Flags&unix.ST_RDONLY != 0 }

func blockSize(st *unix.Statfs_t) int64 { return st.Bsize }

// dropCached asks the kernel to forget the first n bytes of a file, or all for 0. The kernel
// need not do it.
func dropCached(f *os.File, n int64) {
	_ = unix.Fadvise(int(f.Fd()), 0, n, unix.FADV_DONTNEED)
}

// BeginWriteback has the kernel write n bytes of a file to the disk now, and does not wait for that. A sync
// of a large file then has little left to do.
func BeginWriteback(f *os.File, off, n int64) {
	_ = unix.SyncFileRange(int(f.Fd()), off, n, unix.SYNC_FILE_RANGE_WRITE)
}

// From linux/ioprio.h.
const (
	ioprioWhoProcess = 1 // with the id 0, this is the calling thread
	ioprioClassIdle  = 3 << 13
)

func makeThreadIdle() {
	_, _, _ = unix.Syscall(unix.SYS_IOPRIO_SET, ioprioWhoProcess, 0, ioprioClassIdle)
}

func preallocate(f *os.File, size int64) error {
	for {
		err := unix.Fallocate(int(f.Fd()), 0, 0, size)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, unix.EINTR): // some file systems stop for a signal
		case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENOSYS):
			return f.Truncate(size)
		default:
			return &os.PathError{Op: "preallocate", Path: f.Name(), Err: err}
		}
	}
}

// isReadErrno reports whether a read failed because of the disk. The kernel names a bad
// sector in several ways (blk_errors in block/blk-core.c), and so do file systems whose own
// checksums do not match.
func isReadErrno(errno unix.Errno) bool {
	switch errno {
	case unix.EIO, unix.ESTALE, unix.ENODATA, unix.EREMOTEIO, unix.EILSEQ, unix.EBADMSG, unix.EUCLEAN:
		return true
	}
	return false
}
