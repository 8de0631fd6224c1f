package blobs

import (
	"maps"
	"slices"
	"sync"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/cache/disk"
)

// opened knows which files of blobs and partial downloads are open. A file that is removed
// while it is open takes its space until it is closed: its bytes stay reserved until then. Its
// methods may be called from several goroutines at once.
type opened struct {
	space *disk.Space

	mu       sync.Mutex // guards what follows
	blobs    map[digest.Digest]*openFile
	partials map[digest.Digest]*openFile
	spare    []*openFile // for files that are opened later, so that a hit allocates none
	removed  int64       // bytes of files that were removed and are open
}

// openFile is a file that is open.
type openFile struct {
	digest  digest.Digest
	in      map[digest.Digest]*openFile // that has it; nil once the file was removed
	users   int
	removed int64 // bytes that stay reserved until it is closed
}

func newOpened(space *disk.Space) *opened {
	return &opened{space: space, blobs: make(map[digest.Digest]*openFile), partials: make(map[digest.Digest]*openFile)}
}

func (o *opened) table(partial bool) map[digest.Digest]*openFile {
	if partial {
		return o.partials
	}
	return o.blobs
}

// open says that a file is about to be opened. The caller calls close, whether it could be
// opened or not.
func (o *opened) open(d digest.Digest, partial bool) *openFile {
	o.mu.Lock()
	defer o.mu.Unlock()
	in := o.table(partial)
	f := in[d]
	if f == nil {
		if n := len(o.spare); n > 0 {
			f, o.spare = o.spare[n-1], o.spare[:n-1]
		} else {
			f = new(openFile)
		}
		*f = openFile{digest: d, in: in}
		in[d] = f
	}
	f.users++
	return f
}

// close says that a user of a file has closed it.
func (o *opened) close(f *openFile) {
	if n := o.closed(f); n > 0 {
		o.space.Release(n)
	}
}

// closed returns how many bytes are free now.
func (o *opened) closed(f *openFile) int64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	if f.users--; f.users > 0 {
		return 0
	}
	delete(f.in, f.digest)
	o.removed -= f.removed
	o.spare = append(o.spare, f)
	return f.removed
}

// remove says that a file was removed. It releases the n bytes that are reserved for it when
// the file is not open any more, and returns how many that are now.
func (o *opened) remove(d digest.Digest, partial bool, n int64) (freed int64) {
	if !o.detach(d, partial, n) {
		o.space.Release(n)
		freed = n
	}
	return freed
}

// detach reports whether a file that was removed is open.
func (o *opened) detach(d digest.Digest, partial bool, n int64) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	in := o.table(partial)
	f := in[d]
	if f == nil {
		return false
	}
	delete(in, d)
	f.in, f.removed = nil, n
	o.removed += n
	return true
}

// publish says that the file of a partial is that of the blob now. It may have replaced one,
// for which n bytes are reserved.
func (o *opened) publish(d digest.Digest, n int64) {
	o.remove(d, false, n)
	o.mu.Lock()
	defer o.mu.Unlock()
	if f := o.partials[d]; f != nil {
		delete(o.partials, d)
		f.in = o.blobs
		o.blobs[d] = f
	}
}

// isOpen reports whether a file is open.
func (o *opened) isOpen(d digest.Digest, partial bool) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.table(partial)[d] != nil
}

// digests lists the blobs or partials whose files are open.
func (o *opened) digests(partial bool) []digest.Digest {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Collect(maps.Keys(o.table(partial)))
}

// unlinked is how many bytes removed files take that are still open.
func (o *opened) unlinked() int64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.removed
}
