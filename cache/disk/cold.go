package disk

import (
	"os"

	"golang.org/x/sys/unix"
)

// ColdFile reads a file from the disk rather than from the page cache, and leaves nothing
// of it there. So a scrub sees what is at rest, and does not push out what the node's
// workloads use. It is an io.Reader for one goroutine.
type ColdFile struct {
	file *os.File
	off  int64
}

// Cold returns a ColdFile at the beginning of a file that was just opened.
func Cold(file *os.File) *ColdFile { return &ColdFile{file: file} }

func (f *ColdFile) Read(p []byte) (int, error) {
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

// drop asks the kernel to forget the first n bytes. The kernel need not do it.
func (f *ColdFile) drop(n int64) {
	_ = unix.Fadvise(int(f.file.Fd()), 0, n, unix.FADV_DONTNEED)
}

// From linux/ioprio.h.
const (
	ioprioWhoProcess = 1 // with the id 0, this is the calling thread
	ioprioClassIdle  = 3 << 13
)

// MakeThreadIdle lets the calling thread's reads wait for everybody else's, if the disk's
// scheduler knows priorities. The caller must have locked its goroutine to the thread.
func MakeThreadIdle() {
	_, _, _ = unix.Syscall(unix.SYS_IOPRIO_SET, ioprioWhoProcess, 0, ioprioClassIdle)
}
