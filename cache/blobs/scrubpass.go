package blobs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/cache/disk"
	"github.com/larder-registry/larder/cache/fill"
)

// scrubPass checks blobs at rest. It belongs to one goroutine, and holds no lock while it
// reads.
type scrubPass struct {
	store  *Store
	ctx    context.Context
	step   func(n int) error // after n bytes, or what costs as much; an error ends the pass
	done   int64             // bytes read or skipped
	result ScrubResult
	unread error // why a blob could be neither checked nor removed: the latest one
}

// visit checks a blob, and removes it if it is damaged. If it cannot be read for another
// reason, the pass continues.
func (p *scrubPass) visit(d digest.Digest, info fs.FileInfo) error {
	if err := p.step(scrubSeek); err != nil {
		return err
	}
	after := p.done + info.Size()
	defer func() { p.done = after }()
	blob, file, err := p.store.openFile(d)
	if err == nil {
		// It stays open until drop is done: so no new file can be mistaken for it.
		defer blob.Close()
		err = p.verify(d, info.Size(), disk.Cold(file))
	}
	switch {
	case p.ctx.Err() != nil:
		return p.ctx.Err()
	case err == nil:
		p.result.Blobs++
		p.store.verifier.trust(d)
		p.store.locks.setDamaged(d, false)
	case errors.Is(err, fs.ErrNotExist): // it was evicted meanwhile
	case errors.Is(err, fill.ErrMismatch), disk.IsReadError(err):
		return p.drop(d, info, err)
	default:
		p.unread = err
		p.store.Log.Warn("a blob in the cache could not be checked", "digest", d, "error", err)
	}
	return nil
}

// verify returns fill.ErrMismatch if the content, or its size, has changed.
func (p *scrubPass) verify(d digest.Digest, size int64, content io.Reader) error {
	// A snapshot does not tell the size of a manifest, so while the index is being rebuilt
	// it may not be known.
	if rec, err := p.store.Index.Blob(d); err == nil && rec.Size > 0 && rec.Size != size {
		return fmt.Errorf("%d bytes instead of %d: %w", size, rec.Size, fill.ErrMismatch)
	}
	return hashContent(d, content, func(n int) error {
		p.done += int64(n)
		p.result.Bytes += int64(n)
		p.store.Counts.ScrubbedBytes.Add(int64(n))
		return p.step(n)
	})
}

// drop removes a damaged blob, so that the next request fetches it again.
func (p *scrubPass) drop(d digest.Digest, seen fs.FileInfo, damage error) error {
	s := p.store
	select {
	case <-s.loaded:
	case <-p.ctx.Done():
		return p.ctx.Err()
	}
	gone, err := s.removeDamaged(d, seen)
	if err == nil && !gone {
		return nil
	}
	p.result.Mismatches++
	s.Counts.Damaged.Add(1)
	log := s.Log.With("digest", d, "damage", damage)
	if err != nil {
		s.locks.setDamaged(d, true)
		log.Error("a blob in the cache is damaged, and could not be removed; it is not served any more", "error", err)
		return nil
	}
	again := "when it is asked for"
	if s.Pins.Holds(d) {
		again = "now, because it is pinned"
		s.Pins.BlobDamaged()
	}
	log.Error("a blob in the cache was damaged; it was removed, and is fetched again " + again)
	return nil
}

// removeDamaged removes the file of a blob, if it still is the file that was seen and no fill
// of it runs. Its records stay: they say which repositories have the blob, which is fetched
// again. A power cut cannot bring the file back, as it may bring back an evicted one.
func (s *Store) removeDamaged(d digest.Digest, seen fs.FileInfo) (gone bool, err error) {
	s.evicting.Lock()
	defer s.evicting.Unlock()
	if !s.locks.tryLock(d) {
		return false, nil
	}
	defer s.locks.unlock(d)
	info, err := os.Lstat(s.Folder.Blob(d))
	if err != nil || !os.SameFile(seen, info) {
		return false, disk.IgnoreMissing(err)
	}
	it, known := s.Items.Remove(d)
	if err := s.removeFile(d); err != nil {
		if known {
			s.Items.Add(d, it, s.Now())
		}
		return false, err
	}
	s.opened.remove(d, false, it.Bytes)
	if err := s.Folder.SyncDir(filepath.Dir(s.Folder.Blob(d))); err != nil {
		s.Log.Warn("a power cut may bring a damaged blob back", "digest", d, "error", err)
	}
	return true, nil
}
