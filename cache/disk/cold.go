package disk

import "os"

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
		dropCached(f.file, 0)
	}
	n, err := f.file.Read(p)
	if n > 0 {
		f.off += int64(n)
		dropCached(f.file, f.off)
	}
	return n, err
}

// MakeThreadIdle lets the calling thread's reads wait for everybody else's, if the disk's
// scheduler knows priorities. The caller must have locked its goroutine to the thread.
func MakeThreadIdle() { makeThreadIdle() }
