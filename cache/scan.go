package cache

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"github.com/dgraph-io/badger/v4"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// scan finds what is in the folder, and when it was last used: by the index, or
// by the file where the index does not say. Hits are served meanwhile; only what
// needs disk space waits. What cannot be read is passed over: the rest counts all
// the same.
func (s *Store) scan() error {
	s.rebuildOn()
	all, err := s.layout.blobs(s.ctx.Err)
	if s.ctx.Err() != nil {
		return s.ctx.Err()
	}
	partials, unread := s.layout.partials()
	err = errors.Join(err, unread, s.index.describe(all))
	before := s.recency.total()
	s.recency.load(append(all, partials...))
	s.space.charge(s.recency.total() - before)
	err = errors.Join(err, s.space.measure())
	s.pinAllConfigured()
	if err := s.doomAgain(); err != nil {
		s.log.Warn("what lifecycle rules have expired goes with the rest until they are applied again", "error", err)
	}
	return err
}

// describe adds to what a scan found what the index knows of it.
func (ix *index) describe(all []found) error {
	slices.SortFunc(all, func(a, b found) int { return bytes.Compare(a.id[:], b.id[:]) }) // as good as sorted
	find := func(d digest.Digest) *found {
		s := fingerprintOf(d)
		i, ok := slices.BinarySearchFunc(all, s, func(f found, s fingerprint) int { return bytes.Compare(f.id[:], s[:]) })
		if !ok {
			return &found{rank: rankBlob} // its file is gone
		}
		return &all[i]
	}
	return ix.view(func(txn *badger.Txn) error {
		blobs := newCursor(txn, blobPrefix)
		defer blobs.Close()
		var inner []digest.Digest // what indexes list
		for ; blobs.Valid(); blobs.next() {
			if rec := blobs.manifest(); rec.MediaType != "" {
				blob := find(blobs.digest)
				if blob.rank = rankOf(rec.MediaType); blob.rank == rankIndex {
					inner = append(inner, rec.Children...)
				}
			}
		}
		for _, d := range inner {
			if blob := find(d); blob.rank == rankIndex {
				blob.rank = rankInner
			}
		}
		uses := newCursor(txn, usedPrefix)
		defer uses.Close()
		for ; uses.Valid(); uses.next() {
			var at int64
			if unmarshal(uses.Item(), &at) == nil {
				find(uses.digest).used = at
			}
		}
		return nil
	})
}

// blobs lists the complete blobs. cancelled ends it early.
func (l layout) blobs(cancelled func() error) ([]found, error) {
	var all []found
	err := l.eachBlob("", func(d digest.Digest, info fs.FileInfo) error {
		all = append(all, foundItem(d, item{bytes: allocated(info)}, info.ModTime()))
		return cancelled()
	})
	return all, err
}

// partials lists the blobs on their way.
func (l layout) partials() ([]found, error) {
	entries, err := os.ReadDir(filepath.Join(l.dir, "partial"))
	if err != nil {
		return nil, err
	}
	var all []found
	for _, entry := range entries {
		d := partialDigest(entry.Name())
		if d.Validate() != nil {
			continue // a journal
		}
		info, err := entry.Info()
		if err != nil {
			return nil, err
		}
		all = append(all, foundItem(d, item{bytes: onDisk(info.Size()), partial: true}, info.ModTime()))
	}
	return all, nil
}

// allocated is what a file takes on disk.
func allocated(info fs.FileInfo) int64 {
	return max(onDisk(blocks(info)), onDisk(info.Size()))
}

// diskUsage is what the files below a folder take on disk.
func diskUsage(dir string) (int64, error) {
	var sum int64
	err := filepath.WalkDir(dir, func(_ string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return ignoreMissing(err)
		}
		info, err := entry.Info()
		if err != nil {
			return ignoreMissing(err)
		}
		sum += blocks(info)
		return nil
	})
	return sum, err
}

// blocks is what the file system has taken for a file or folder so far.
func blocks(info fs.FileInfo) int64 {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return st.Blocks * 512
	}
	return 0
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// rankOf tells from its media type what a blob is.
func rankOf(mediaType string) rank {
	switch mediaType {
	case "":
		return rankBlob
	case ocispec.MediaTypeImageIndex, "application/vnd.docker.distribution.manifest.list.v2+json":
		return rankIndex
	}
	return rankManifest
}
