package cache

import (
	"bytes"
	"io"
	"os"

	"github.com/opencontainers/go-digest"
)

// What follows answers from here alone. It asks no upstream and waits for nobody,
// so its caller need not get ready for a wait: it is the way of a hit.

// ManifestHere returns a manifest that is here and belongs to the repository.
func (s *Store) ManifestHere(repo Repository, d digest.Digest) (Manifest, bool) {
	if CheckDigest(d) != nil {
		return Manifest{}, false
	}
	return s.local(repo, d)
}

// TagHere returns what a tag points at, if that need not be confirmed.
func (s *Store) TagHere(repo Repository, tag string) (Manifest, bool) {
	memo, known := s.tag(tagID{repo, tag})
	if !known || !s.opts.Tags.isFresh(repo, tag, memo.Checked, s.opts.Now()) {
		return Manifest{}, false
	}
	return s.local(repo, memo.Digest)
}

// BlobHere opens a blob that is complete and that the repository is known to hold.
// Nil means that [Store.Holds] and [Store.Open] have the answer.
func (s *Store) BlobHere(repo Repository, d digest.Digest) *Blob {
	if CheckDigest(d) != nil {
		return nil
	}
	if rec, err := s.member(repo, d); err != nil || rec.Manifest {
		return nil
	}
	content, ok := s.memory.blobs.Get(d)
	if ok {
		s.recency.Use(d, s.opts.Now())
		return inMemory(content)
	}
	if s.isUnfit(d) {
		return nil
	}
	file, err := os.Open(s.folder.Blob(d))
	if err != nil {
		return nil
	}
	blob, err := hit(file)
	if err != nil {
		return nil
	}
	s.recency.Use(d, s.opts.Now())
	if blob.Size > hotBlobMax {
		return blob
	}
	return s.heat(d, file, blob.Size)
}

// isUnfit reports whether the file of a blob is not to be served: while a fill
// replaces it, or it is damaged.
func (s *Store) isUnfit(d digest.Digest) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.filling[d] != nil || s.damaged[d]
}

// heat takes a small blob into memory. One that is damaged counts as missing from
// now on: nil.
func (s *Store) heat(d digest.Digest, file *os.File, size int64) *Blob {
	defer file.Close()
	content := make([]byte, size)
	if _, err := file.ReadAt(content, 0); err != nil || d.Algorithm().FromBytes(content) != d {
		s.Distrust(d)
		return nil
	}
	s.memory.blobs.Add(d, content)
	if _, err := os.Lstat(file.Name()); err != nil {
		s.memory.forget(d) // it was evicted meanwhile
	}
	return inMemory(content)
}

func inMemory(content []byte) *Blob {
	return &Blob{ReadSeekCloser: noFile{bytes.NewReader(content)}, Content: content, Size: int64(len(content)), State: Hit}
}

// noFile is a blob that needs no file.
type noFile struct{ io.ReadSeeker }

func (noFile) Close() error { return nil }
