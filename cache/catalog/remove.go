package catalog

import (
	"slices"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/cache/recency"
	"github.com/larder-registry/larder/cache/records"
)

// Removal is what goes with images that are removed from a repository.
type Removal struct {
	Tags   []string        // of the repository
	Pinned bool            // one of the images is pinned
	Own    []digest.Digest // what no other image of the repository needs
	Blobs  []digest.Digest // what no other image of any repository needs
}

// Removal finds out what goes with an image, by its tag, or by its digest with all of its
// tags. ok is false if the repository has no such image.
func (c *Catalog) Removal(repo records.Repository, reference string) (r Removal, ok bool) {
	var gone, others, siblings []digest.Digest
	for _, img := range c.images {
		switch {
		case img.repo() == repo && (img.Tag == reference || img.Digest.String() == reference):
			gone = append(gone, img.Digest)
			r.Pinned = r.Pinned || img.Pinned
			if img.Tag != "" {
				r.Tags = append(r.Tags, img.Tag)
			}
			continue
		case img.repo() == repo:
			siblings = append(siblings, img.Digest)
		}
		others = append(others, img.Digest)
	}
	needed := c.closure(gone...)
	r.Own, r.Blobs = c.without(needed, siblings), c.without(needed, others)
	return r, len(gone) > 0
}

// without returns the part of a closure that the images do not need.
func (c *Catalog) without(closure map[digest.Digest]bool, images []digest.Digest) []digest.Digest {
	needed := c.closure(images...)
	var left []digest.Digest
	for d := range closure {
		if !needed[d] {
			left = append(left, d)
		}
	}
	return left
}

// OnlyNeededBy returns these images and what only they need, in the order in which it is to
// be evicted: each image in its place, and what it needs after the last image that does.
func (c *Catalog) OnlyNeededBy(images []digest.Digest) []digest.Digest {
	chosen := make(map[digest.Digest]bool)
	for _, d := range images {
		chosen[d] = true
	}
	var stay []digest.Digest
	for _, img := range c.images {
		if !chosen[img.Digest] {
			stay = append(stay, img.Digest)
		}
	}
	needed := c.closure(stay...)
	all := recency.Descend(images, func(d digest.Digest) []digest.Digest { return c.manifests[d].Children })
	return slices.DeleteFunc(all, func(d digest.Digest) bool { return needed[d] })
}
