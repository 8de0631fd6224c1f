package blobs

import (
	"bytes"
	"io"

	"github.com/larder-registry/larder/cache/fill"
)

// State says how an answer came about. It is the value of the X-Cache header.
type State string

// The states of an answer.
const (
	Hit    State = "HIT"    // served from the cache
	Miss   State = "MISS"   // fetched for this answer
	Stale  State = "STALE"  // served from the cache although the upstream could not confirm it
	Bypass State = "BYPASS" // passed through without being kept
)

// Blob is an open blob. It belongs to one request, which closes it.
type Blob struct {
	// A complete blob is an *os.File here, so that the kernel can copy it to a socket,
	// unless it has a Content. Otherwise reads block until the bytes arrive, or until the
	// context given to [Store.Open] ends.
	io.ReadSeeker
	// Content is a small blob's bytes, if they are in memory. They must not be changed.
	Content []byte
	Size    int64
	State   State

	opened *opened   // has file
	file   *openFile // nil for a blob that has no file of its own
}

// InMemory returns a blob whose content is in memory.
func InMemory(content []byte) *Blob {
	return &Blob{ReadSeeker: bytes.NewReader(content), Content: content, Size: int64(len(content)), State: Hit}
}

// Close ends the reading. The file of a blob that was evicted meanwhile is gone then, and its
// space is free.
func (b *Blob) Close() (err error) {
	if c, ok := b.ReadSeeker.(io.Closer); ok {
		err = c.Close()
	}
	if b.file != nil {
		b.opened.close(b.file)
		b.file = nil
	}
	return err
}

// newBlob returns a blob that is read while its fill runs.
func newBlob(r *fill.Reader) *Blob {
	state := Miss
	if r.PassesThrough() {
		state = Bypass
	}
	return &Blob{ReadSeeker: r, Size: r.Size(), State: state}
}

// Begin asks the source for the n bytes at off that the client reads first, if the blob is passed
// through: see [fill.Reader.Begin]. It is called before the client has its headers, with the
// context given to [Store.Open] bounding the wait.
func (b *Blob) Begin(off, n int64) error {
	if r, ok := b.ReadSeeker.(*fill.Reader); ok {
		return r.Begin(off, n)
	}
	return nil
}

// Err returns what cut the reading short, such as content that did not verify. The client
// must not take what it got for the whole.
func (b *Blob) Err() error {
	if r, ok := b.ReadSeeker.(*fill.Reader); ok {
		return r.Err()
	}
	return nil
}
