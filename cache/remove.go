package cache

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/larder-registry/larder/cache/records"
	"github.com/opencontainers/go-digest"
)

// ErrPinned is returned for an image that cannot be removed because it is
// pinned.
var ErrPinned = errors.New("the image is pinned")

// absent is fs.ErrNotExist in the words of who names images.
type absent string

const (
	errNoImage   absent = "no such image in the cache"
	errNotPinned absent = "it is not pinned"
)

func (a absent) Error() string { return string(a) }

// Is is for errors.Is.
func (absent) Is(target error) bool { return target == fs.ErrNotExist }

// Why something is removed before its turn, in logs and metrics.
const (
	reasonRemoved = "removed by command"
	reasonGone    = "expired, and gone upstream"
)

// Remove forgets an image by its tag, or by its digest with all of its tags, and
// removes from disk what no other image reaches, no pin holds and no fill is
// about to bring. It returns how many bytes that freed, and fs.ErrNotExist where
// [Store.Images] does not list the image.
func (s *Store) Remove(repo Repository, reference string) (freed int64, err error) {
	return s.removeImage(repo, reference, reasonRemoved)
}

// RemoveExpired is Remove, by digest, of an image that has expired and that its
// upstream does not have any more.
func (s *Store) RemoveExpired(repo Repository, d digest.Digest) (freed int64, err error) {
	return s.removeImage(repo, d.String(), reasonGone)
}

func (s *Store) removeImage(repo Repository, reference, reason string) (freed int64, err error) {
	name := repo.Image(reference)
	s.evicting.Lock()
	defer s.evicting.Unlock()
	watch := s.recency.Watch()
	defer s.recency.EndWatch(watch)
	c, err := s.catalog()
	if err != nil {
		return 0, err
	}
	gone, rest := c.part(repo, reference)
	if len(gone) == 0 {
		return 0, fmt.Errorf("remove %s: %w", name, errNoImage)
	}
	for _, img := range gone {
		if img.Pinned {
			return 0, fmt.Errorf("remove %s: %w", name, ErrPinned)
		}
	}
	reached := c.closureOf(gone)
	if err := s.disown(repo, gone, c.without(reached, inRepository(rest, repo))); err != nil {
		return 0, fmt.Errorf("remove %s: %w", name, err)
	}
	for _, d := range c.without(reached, rest) {
		if s.recency.UsedDuring(watch, d) {
			continue // perhaps by an image that came meanwhile
		}
		n, err := s.evictOne(d, reason)
		freed += n
		if err != nil {
			return freed, fmt.Errorf("remove %s: %w", name, err)
		}
	}
	return freed, nil
}

// part tells the images that a reference means from all others.
func (c *catalog) part(repo Repository, reference string) (meant, rest []ImageInfo) {
	for _, img := range c.images {
		if img.repo() == repo && (img.Tag == reference || img.Digest.String() == reference) {
			meant = append(meant, img)
		} else {
			rest = append(rest, img)
		}
	}
	return meant, rest
}

func inRepository(images []ImageInfo, repo Repository) []ImageInfo {
	var in []ImageInfo
	for _, img := range images {
		if img.repo() == repo {
			in = append(in, img)
		}
	}
	return in
}

func (c *catalog) closureOf(images []ImageInfo) map[digest.Digest]bool {
	var roots []digest.Digest
	for _, img := range images {
		roots = append(roots, img.Digest)
	}
	return c.closure(roots...)
}

// without returns what of a closure the images do not reach.
func (c *catalog) without(closure map[digest.Digest]bool, images []ImageInfo) []digest.Digest {
	reached := c.closureOf(images)
	var left []digest.Digest
	for d := range closure {
		if !reached[d] {
			left = append(left, d)
		}
	}
	return left
}

// disown forgets tags, and that the repository holds these blobs.
func (s *Store) disown(repo Repository, images []ImageInfo, blobs []digest.Digest) error {
	var tags []string
	for _, img := range images {
		if img.Tag != "" {
			tags = append(tags, img.Tag)
		}
	}
	err := s.index.Disown(repo, tags, blobs)
	for _, tag := range tags {
		s.memory.tags.Remove(tagID{repo, tag})
	}
	for _, d := range blobs {
		s.memory.members.Remove(records.RepoDigest{Repository: repo, Digest: d})
	}
	return err
}
