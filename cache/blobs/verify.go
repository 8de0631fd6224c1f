package blobs

import (
	"context"
	"errors"
	"io"
	"sync"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/cache/disk"
	"github.com/larder-registry/larder/cache/fill"
)

// VerifyOnRead says when the file of a blob is hashed before it is served. A client waits for
// that: some 0.7 s for each GiB that the kernel has in memory, or 2.6 s on processors that
// others use (BenchmarkFirstUse), and as long as the disk takes for the rest. Small blobs that are served from memory are hashed when they get there.
type VerifyOnRead int

const (
	// VerifyNever serves a file of the right size. The scrub finds bits that have flipped.
	VerifyNever VerifyOnRead = iota
	// VerifyFirst hashes a file before its first use since the store was opened.
	VerifyFirst
	// VerifyAlways hashes a file before each use.
	VerifyAlways
)

// verifier knows which files need to be hashed before they are served.
type verifier struct {
	when VerifyOnRead

	mu       sync.Mutex                      // guards what follows
	verified map[digest.Digest]bool          // of VerifyFirst
	running  map[digest.Digest]*verification // not over yet
}

// verification is the hashing of one file, for all requests that wait for it.
type verification struct {
	done chan struct{} // closed when err is set
	err  error         // why the file must not be served
}

func newVerifier(when VerifyOnRead) *verifier {
	return &verifier{when: when, verified: make(map[digest.Digest]bool), running: make(map[digest.Digest]*verification)}
}

// trusts reports whether the file of a blob may be served as it is.
func (v *verifier) trusts(d digest.Digest) bool {
	switch v.when {
	case VerifyNever:
		return true
	case VerifyAlways:
		return false
	case VerifyFirst:
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.verified[d]
}

// trust says that the content of a blob matches its digest.
func (v *verifier) trust(d digest.Digest) {
	if v.when != VerifyFirst {
		return
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.verified[d] = true
}

// forget says that the file of a blob is gone.
func (v *verifier) forget(d digest.Digest) {
	v.mu.Lock()
	defer v.mu.Unlock()
	delete(v.verified, d)
}

// begin returns the running verification of a blob, or a new one, which the caller ends.
func (v *verifier) begin(d digest.Digest) (run *verification, isNew bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if run := v.running[d]; run != nil {
		return run, false
	}
	run = &verification{done: make(chan struct{})}
	v.running[d] = run
	return run, true
}

func (v *verifier) end(d digest.Digest, run *verification, err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	delete(v.running, d)
	if err == nil && v.when == VerifyFirst {
		v.verified[d] = true
	}
	run.err = err
	close(run.done)
}

// verify waits until the file of a blob has been hashed, if the settings want that. The error
// is fill.ErrMismatch if the content does not match, or the one of ctx.
func (s *Store) verify(ctx context.Context, d digest.Digest) error {
	if s.verifier.trusts(d) {
		return nil
	}
	run, isNew := s.verifier.begin(d)
	if isNew {
		// It outlives a client that leaves: others may wait for it.
		if err := s.Tasks.Go(func() { s.verifier.end(d, run, s.hashFile(d)) }); err != nil {
			s.verifier.end(d, run, err)
		}
	}
	select {
	case <-run.done:
		return run.err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// hashFile returns fill.ErrMismatch if the file of a blob does not match its digest.
func (s *Store) hashFile(d digest.Digest) error {
	file, _, err := s.openFile(d)
	if err != nil {
		return err
	}
	defer file.Close()
	ctx := s.Tasks.Context()
	return hashContent(d, file, func(int) error { return ctx.Err() })
}

// hashContent returns fill.ErrMismatch if a blob's content does not match its digest. It calls
// read after every n bytes that it has read, and ends with the error that this returns.
func hashContent(d digest.Digest, content io.Reader, read func(n int) error) error {
	buf := disk.Buffer()
	defer disk.FreeBuffer(buf)
	hash := d.Algorithm().Hash()
	for {
		n, err := content.Read(*buf)
		hash.Write((*buf)[:n])
		if n > 0 {
			if err := read(n); err != nil {
				return err
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			if digest.NewDigest(d.Algorithm(), hash) != d {
				return fill.ErrMismatch
			}
			return nil
		case err != nil:
			return err
		}
	}
}
