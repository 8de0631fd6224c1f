package cache

import (
	"errors"
	"fmt"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/cache/blobs"
	"github.com/larder-registry/larder/cache/catalog"
	"github.com/larder-registry/larder/cache/pins"
	"github.com/larder-registry/larder/cache/records"
)

// ErrPinned is returned for an image that cannot be removed because it is pinned.
var ErrPinned = errors.New("the image is pinned")

// Images lists the images in the cache, sorted by name. It waits until the folder is loaded,
// and reads all of the index, so it is not for the way of a request.
func (s *Store) Images() ([]ImageInfo, error) {
	c, err := s.catalog()
	if err != nil {
		return nil, err
	}
	return c.Images(), nil
}

// Loaded is closed when it is known what is on disk. [Store.Images] waits for it, and so do
// the other methods that say that they wait until the folder is loaded.
func (s *Store) Loaded() <-chan struct{} { return s.blobs.Loaded() }

func (s *Store) catalog() (*catalog.Catalog, error) {
	if err := s.awaitLoaded(); err != nil {
		return nil, err
	}
	return s.readCatalog()
}

// readCatalog is catalog for a caller that knows that the folder is loaded.
func (s *Store) readCatalog() (*catalog.Catalog, error) {
	pinned, err := s.pins.All()
	if err != nil {
		return nil, err
	}
	return catalog.Read(s.index, s.items, pinned)
}

// Holdings returns what each repository has in the cache. It reads as much as [Store.Images]
// does.
func (s *Store) Holdings() (map[Repository][]Holding, error) {
	c, err := s.catalog()
	if err != nil {
		return nil, err
	}
	touched, err := s.index.Touches()
	if err != nil {
		return nil, err
	}
	return c.Holdings(touched), nil
}

// Touched records, to the second, that the upstream was told at this time that a manifest of
// the repository is in use. It is forgotten with the manifest, and may be forgotten in a
// crash, or with a lost index: then the upstream is told once more.
func (s *Store) Touched(repo Repository, d digest.Digest, at time.Time) error {
	return s.index.PutTouch(repo, d, at)
}

// Remove forgets an image by its tag, or by its digest with all of its tags, and removes from
// disk what no other image needs, no pin holds and no fill is about to bring. It returns how
// many bytes that freed, and fs.ErrNotExist if [Store.Images] does not list the image.
func (s *Store) Remove(repo Repository, reference string) (freed int64, err error) {
	return s.removeImage(repo, reference, blobs.ReasonRemoved)
}

// RemoveExpired is Remove, by digest, for an image that has expired and that its upstream
// does not have any more.
func (s *Store) RemoveExpired(repo Repository, d digest.Digest) (freed int64, err error) {
	return s.removeImage(repo, d.String(), blobs.ReasonGone)
}

func (s *Store) removeImage(repo Repository, reference, reason string) (freed int64, err error) {
	if err := s.awaitLoaded(); err != nil {
		return 0, err
	}
	freed, err = s.blobs.Remove(reason, func() ([]digest.Digest, error) {
		c, err := s.readCatalog()
		if err != nil {
			return nil, err
		}
		gone, ok := c.Removal(repo, reference)
		switch {
		case !ok:
			return nil, pins.ErrNoImage
		case gone.Pinned:
			return nil, ErrPinned
		}
		return gone.Blobs, s.disown(repo, gone)
	})
	if err != nil {
		return freed, fmt.Errorf("remove %s: %w", repo.Image(reference), err)
	}
	return freed, nil
}

// disown forgets the tags of an image, and that the repository has what only it needs.
func (s *Store) disown(repo Repository, gone catalog.Removal) error {
	s.tagging.Lock()
	err := s.index.Disown(repo, gone.Tags, gone.Own)
	for _, tag := range gone.Tags {
		s.memory.tags.Remove(tagID{repo, tag})
	}
	s.tagging.Unlock()
	for _, d := range gone.Own {
		id := records.RepoDigest{Repository: repo, Digest: d}
		s.memory.members.Remove(id)
		s.memory.referrers.remove(id)
	}
	return err
}
