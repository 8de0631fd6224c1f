package cache

import (
	"os"

	"golang.org/x/sys/unix"
)

// coldFile reads a file from the disk rather than from memory, and leaves
// nothing of it there, so that a scrub sees what is at rest and does not push
// out what the node's workloads use.
type coldFile struct {
	file *os.File
	off  int64
}

func (f *coldFile) Read(p []byte) (int, error) {
	if f.off == 0 {
		f.drop(0) // to its end
	}
	n, err := f.file.Read(p)
	if n > 0 {
		f.off += int64(n)
		f.drop(f.off)
	}
	return n, err
}

// drop has the kernel forget the first n bytes. That it need not is no error.
func (f *coldFile) drop(n int64) {
	_ = unix.Fadvise(int(f.file.Fd()), 0, n, unix.FADV_DONTNEED)
}

// From linux/ioprio.h.
const (
	ioprioWhoProcess = 1 // which, with the id 0, is the calling thread
	ioprioClassIdle  = 3 << 13
)

// makeThreadIdle has the calling thread's reads wait for everybody else's, where
// the disk's scheduler knows such a thing. The caller is locked to its thread.
func makeThreadIdle() {
	_, _, _ = unix.Syscall(unix.SYS_IOPRIO_SET, ioprioWhoProcess, 0, ioprioClassIdle)
}
