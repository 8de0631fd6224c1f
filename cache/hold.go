package cache

import (
	"fmt"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/cache/pins"
	"github.com/larder-registry/larder/cache/records"
)

// Hold keeps blobs and manifests in the cache for a time: while they are exported, or until an
// image that is being fetched is whole. Its methods may be called from several goroutines at
// once.
type Hold struct {
	store *Store
	hold  *pins.Hold
}

// Hold returns a Hold of nothing, which the caller closes. It waits until the folder is loaded.
func (s *Store) Hold() (*Hold, error) {
	if err := s.awaitLoaded(); err != nil {
		return nil, err
	}
	return &Hold{s, s.pins.Hold()}, nil
}

// Add keeps these blobs and manifests, and returns those that are not in the cache. Once they
// come they are kept as well.
func (h *Hold) Add(digests ...digest.Digest) (missing []digest.Digest, err error) {
	for _, d := range digests {
		if err := CheckDigest(d); err != nil {
			return nil, err
		}
	}
	s, sizes := h.store, make(map[digest.Digest]int64)
	err = s.blobs.WithoutEvictions(func() error {
		for _, d := range digests {
			it, _ := s.items.Get(d)
			sizes[d] = it.Bytes
			if _, err := s.blobs.Stat(d); err != nil && !isEmpty(d) {
				missing = append(missing, d)
			}
		}
		h.hold.Add(sizes)
		return nil
	})
	return missing, err
}

// Open opens a blob or a manifest of the cache, whatever its repository. The error is
// fs.ErrNotExist if it is not complete, or is known to be damaged.
func (h *Hold) Open(d digest.Digest) (*Blob, error) { return h.store.OpenHere(d) }

// Close lets everything be evicted again.
func (h *Hold) Close() { h.hold.Close() }

// Digests lists all blobs and manifests in the cache that are complete, in no order. It waits
// until the folder is loaded.
func (s *Store) Digests() ([]digest.Digest, error) {
	if err := s.awaitLoaded(); err != nil {
		return nil, err
	}
	return slices.DeleteFunc(s.items.Digests(), func(d digest.Digest) bool {
		it, ok := s.items.Get(d)
		return !ok || it.Partial
	}), nil
}

// Resolve returns what a tag or a digest of a repository stands for in the cache, and when the
// tag was last confirmed by its upstream. It asks no upstream. The error is fs.ErrNotExist if the
// repository is not known to have it.
func (s *Store) Resolve(repo Repository, reference string) (d digest.Digest, confirmed time.Time, err error) {
	image := records.Pin{Repository: repo, Reference: reference}
	if d, err = s.index.Resolve(image); err != nil {
		return "", time.Time{}, fmt.Errorf("find %s in the cache: %w", image, err)
	}
	if rec, err := s.index.Tag(repo, reference); err == nil {
		confirmed = rec.Checked
	}
	return d, confirmed, nil
}
