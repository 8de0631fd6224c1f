// Package catalog lists what a cache folder has at one time: images, the manifests of each
// repository, and what each image needs. It reads all of the index, so it is for people,
// lifecycle rules and removals, and not on the way of a request.
package catalog

import (
	"cmp"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/cache/manifest"
	"github.com/larder-registry/larder/cache/recency"
	"github.com/larder-registry/larder/cache/records"
)

// Catalog is what the index says at one time. It belongs to one goroutine.
type Catalog struct {
	items     *recency.List
	manifests map[digest.Digest]records.Blob         // those that are on disk
	members   map[records.Repository][]digest.Digest // which of them each repository has
	images    []Image                                // sorted by name
	used      map[digest.Digest]time.Time            // when the manifests were
	complete  map[digest.Digest]bool                 // what isComplete found out
}

// Image is what the cache knows of an image: of a tag, or of a manifest on disk that no tag
// or index of its repository reaches.
type Image struct {
	Upstream   string `json:"upstream"`
	Repository string `json:"repository"`
	// Tag is empty for a manifest without one.
	Tag    string        `json:"tag,omitempty"`
	Digest digest.Digest `json:"digest"`
	// MediaType is empty if the manifest is not on disk any more.
	MediaType string `json:"mediaType,omitempty"`
	// Bytes is what the image takes on disk, with what it shares with others.
	Bytes int64 `json:"bytes"`
	// Complete says that all of at least one platform is on disk; or all of an image,
	// chart or other artifact that is not for a platform.
	Complete bool `json:"complete"`
	// Used is when the manifest was last asked for, or fetched, to the second.
	Used time.Time `json:"used,omitzero"`
	// Checked is when the upstream last confirmed the tag.
	Checked time.Time `json:"checked,omitzero"`
	// Local says that the tag is not compared with its upstream: see "larder import --as-local".
	Local  bool `json:"local,omitempty"`
	Pinned bool `json:"pinned"`
	// Gone is when the upstream first said that the tag does not exist. The tag is served as it
	// was while it is pinned, or as the configuration says.
	Gone time.Time `json:"gone,omitzero"`
	// Expired is set if a lifecycle rule of the repository, or for it, has expired the image.
	Expired *records.Expiry `json:"expired,omitempty"`
}

// Name is <upstream>/<repository>:<tag>, or @<digest> if there is no tag.
func (i Image) Name() string { return i.repo().Image(cmp.Or(i.Tag, i.Digest.String())) }

func (i Image) repo() records.Repository {
	return records.Repository{Upstream: i.Upstream, Name: i.Repository}
}

// Read reads the catalog of an index. items tell what is on disk; pinned are all pins.
func Read(ix *records.Index, items *recency.List, pinned map[records.Pin]records.PinRecord) (*Catalog, error) {
	c := &Catalog{
		items:     items,
		manifests: make(map[digest.Digest]records.Blob),
		members:   make(map[records.Repository][]digest.Digest),
		used:      make(map[digest.Digest]time.Time),
		complete:  make(map[digest.Digest]bool),
	}
	for _, read := range []func(*records.Index) error{c.readManifests, c.readTags, c.readMembers, c.readUses} {
		if err := read(ix); err != nil {
			return nil, err
		}
	}
	verdicts, err := ix.Verdicts()
	if err != nil {
		return nil, err
	}
	c.addUntagged()
	for i := range c.images {
		c.describe(&c.images[i])
		c.images[i].Pinned = isPinned(c.images[i], pinned)
	}
	c.addVerdicts(verdicts)
	slices.SortFunc(c.images, func(a, b Image) int { return cmp.Compare(a.Name(), b.Name()) })
	return c, nil
}

// Images lists the images, sorted by name. The caller must not change the slice.
func (c *Catalog) Images() []Image { return c.images }

// HasManifest reports whether a manifest is on disk.
func (c *Catalog) HasManifest(d digest.Digest) bool {
	_, ok := c.manifests[d]
	return ok
}

func (c *Catalog) readManifests(ix *records.Index) error {
	return ix.EachManifest(func(d digest.Digest, rec records.Blob) error {
		if rec.IsManifest() && c.bytesOf(d) > 0 {
			c.manifests[d] = rec
		}
		return nil
	})
}

func (c *Catalog) readTags(ix *records.Index) error {
	pending := make(map[records.Pin]records.Pending)
	err := ix.EachPending(func(repo records.Repository, tag string, rec records.Pending) error {
		pending[records.Pin{Repository: repo, Reference: tag}] = rec
		return nil
	})
	if err != nil {
		return err
	}
	return ix.EachTag(func(repo records.Repository, tag string, rec records.Tag) error {
		c.images = append(c.images, Image{
			Upstream: repo.Upstream, Repository: repo.Name, Tag: tag,
			Digest: rec.Digest, Checked: rec.Checked, Local: rec.Local,
			Gone: pending[records.Pin{Repository: repo, Reference: tag}].GoneSince(rec.Checked),
		})
		return nil
	})
}

func (c *Catalog) readMembers(ix *records.Index) error {
	return ix.EachMember(c.HasManifest, func(of records.RepoDigest, rec records.Member) error {
		if rec.Manifest {
			c.members[of.Repository] = append(c.members[of.Repository], of.Digest)
		}
		return nil
	})
}

func (c *Catalog) readUses(ix *records.Index) error {
	for d, rec := range c.manifests {
		c.used[d] = rec.Fetched
	}
	err := ix.EachUse(func(d digest.Digest, at int64) {
		if _, ok := c.used[d]; ok {
			c.used[d] = time.Unix(at, 0)
		}
	})
	for d := range c.used {
		if at, ok := c.items.UsedSince(d); ok {
			c.used[d] = at
		}
	}
	return err
}

// addUntagged adds the manifests that nothing else in their repository reaches.
func (c *Catalog) addUntagged() {
	roots := make(map[records.Repository][]digest.Digest)
	for _, img := range c.images {
		roots[img.repo()] = append(roots[img.repo()], img.Digest)
	}
	for repo, manifests := range c.members {
		reached := c.closure(roots[repo]...)
		for _, d := range manifests {
			for _, child := range c.manifests[d].Children {
				reached[child] = true
			}
		}
		for _, d := range manifests {
			if !reached[d] {
				c.images = append(c.images, Image{Upstream: repo.Upstream, Repository: repo.Name, Digest: d})
			}
		}
	}
}

// describe fills in what follows from the manifest.
func (c *Catalog) describe(img *Image) {
	img.MediaType = c.manifests[img.Digest].MediaType
	for d := range c.closure(img.Digest) {
		img.Bytes += c.bytesOf(d)
	}
	img.Complete = c.hasImage(img.Digest)
	if at := c.used[img.Digest]; !at.IsZero() {
		img.Used = at.UTC().Truncate(time.Second)
	}
}

// addVerdicts notes which images have expired.
func (c *Catalog) addVerdicts(verdicts []records.Verdict) {
	expired := make(map[records.RepoDigest]*records.Expiry)
	for i := range verdicts {
		v := &verdicts[i]
		expired[records.RepoDigest{Repository: v.Repository, Digest: v.Digest}] = &v.Expiry
	}
	for i := range c.images {
		img := &c.images[i]
		img.Expired = expired[records.RepoDigest{Repository: img.repo(), Digest: img.Digest}]
	}
}

// isPinned reports whether an image is pinned by one of its names.
func isPinned(img Image, pins map[records.Pin]records.PinRecord) bool {
	_, byTag := pins[records.Pin{Repository: img.repo(), Reference: img.Tag}]
	_, byDigest := pins[records.Pin{Repository: img.repo(), Reference: img.Digest.String()}]
	return byTag || byDigest
}

// closure is all that the images with these digests need, as far as it is known: themselves,
// and what the manifests on disk name.
func (c *Catalog) closure(roots ...digest.Digest) map[digest.Digest]bool {
	all := make(map[digest.Digest]bool)
	for todo := slices.Clone(roots); len(todo) > 0; {
		d := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if !all[d] {
			all[d] = true
			todo = append(todo, c.manifests[d].Children...)
		}
	}
	return all
}

// hasImage reports whether a manifest is on disk, and all that it needs.
func (c *Catalog) hasImage(d digest.Digest) bool { return c.HasManifest(d) && c.isComplete(d) }

// isComplete reports whether a blob is on disk; of an image all of it, and of an index all
// of one platform or, if it has no platforms, of all its entries.
// Documents cannot name each other in a circle: they name digests.
func (c *Catalog) isComplete(d digest.Digest) bool {
	if known, ok := c.complete[d]; ok {
		return known
	}
	rec, ok := c.manifests[d]
	switch {
	case !ok: // a blob, or a manifest that is not here
		ok = c.bytesOf(d) > 0 || d == d.Algorithm().FromBytes(nil)
	case len(rec.Platforms) > 0:
		ok = slices.ContainsFunc(rec.Platforms, c.hasImage)
	case manifest.IsIndex(rec.MediaType) && !rec.NeedsAll: // of an earlier release
		ok = slices.ContainsFunc(rec.Children, c.hasImage)
	default:
		ok = !slices.ContainsFunc(rec.Children, func(child digest.Digest) bool { return !c.isComplete(child) })
	}
	c.complete[d] = ok
	return ok
}

// bytesOf is what a complete blob takes on disk, or 0 if it is not on disk.
func (c *Catalog) bytesOf(d digest.Digest) int64 {
	if it, ok := c.items.Get(d); ok && !it.Partial {
		return it.Bytes
	}
	return 0
}
