package fill

import (
	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/cache/disk"
)

// verify hashes what arrives, in order, and compares the digest at the end. After a failure
// it hashes what is on disk: all of the blob may be.
func (f *Fill) verify() error {
	<-f.ready
	for {
		off, n, err := f.claimFront()
		if err != nil {
			return err
		}
		if n == 0 {
			break
		}
		if err := f.hashStored(off, n); err != nil {
			return DiskError{err}
		}
		f.hashed(n)
	}
	if digest.NewDigest(f.digest.Algorithm(), f.hash) != f.digest {
		return ErrMismatch
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.state, f.err = verified, nil
	f.wakeLocked(0, f.size)
	return nil
}

// claimFront waits until there are bytes behind the front that are on disk and that no
// goroutine hashes, and gives the hash to its caller. It returns 0 bytes when all are
// hashed.
func (f *Fill) claimFront() (off, n int64, err error) {
	for {
		f.mu.Lock()
		if !f.hashing {
			off, n, err = f.front, min(f.segs.available(f.front), disk.ChunkSize), f.err
			f.hashing = n > 0
		}
		idle, over := !f.hashing, f.size > 0 && f.front == f.size
		f.mu.Unlock()
		switch {
		case n > 0, over:
			return off, n, nil
		case idle && err != nil:
			return 0, 0, err
		}
		<-f.hashable // a failure sends too, and the end of the fill's context is one
	}
}

// hashStored hashes n bytes on disk. It keeps the buffer no longer than that: most fills
// wait most of the time.
func (f *Fill) hashStored(off, n int64) error {
	buf := disk.Buffer()
	defer disk.FreeBuffer(buf)
	chunk := (*buf)[:n]
	if _, err := f.part.data.ReadAt(chunk, off); err != nil {
		return err
	}
	f.hash.Write(chunk)
	return nil
}

// hashed moves the front n bytes on, and gives the hash back.
func (f *Fill) hashed(n int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.front += n
	f.hashing = false
	f.recruitLocked()
	f.nudgeLocked()
}

// nudgeLocked tells Run to look at the front, if it has something to do there.
func (f *Fill) nudgeLocked() {
	if f.hashing || f.state != failed && f.front != f.size && f.segs.available(f.front) == 0 {
		return
	}
	select {
	case f.hashable <- struct{}{}:
	default:
	}
}
