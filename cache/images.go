package cache

import (
	"cmp"
	"errors"
	"slices"
	"time"

	"github.com/larder-registry/larder/cache/recency"
	"github.com/larder-registry/larder/cache/records"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

// ImageInfo is what the cache knows of an image: of a tag, or of a manifest that
// is here and that no tag or index of its repository reaches.
type ImageInfo struct {
	Upstream   string `json:"upstream"`
	Repository string `json:"repository"`
	// Tag is empty for a manifest without one.
	Tag    string        `json:"tag,omitempty"`
	Digest digest.Digest `json:"digest"`
	// MediaType is empty where the manifest is not here any more.
	MediaType string `json:"mediaType,omitempty"`
	// Bytes is what the image takes on disk, with what it shares with others.
	Bytes int64 `json:"bytes"`
	// Complete says that all of at least one platform is on disk.
	Complete bool `json:"complete"`
	// Used is when the manifest was last asked for, or fetched, to the second.
	Used time.Time `json:"used,omitzero"`
	// Checked is when the upstream last confirmed the tag.
	Checked time.Time `json:"checked,omitzero"`
	Pinned  bool      `json:"pinned"`
	// Expired is there where a lifecycle rule of the repository, or for it, has
	// expired the image.
	Expired *Expiry `json:"expired,omitempty"`
}

// Name is <upstream>/<repository>:<tag>, or @<digest> where there is no tag.
func (i ImageInfo) Name() string {
	return i.repo().Image(cmp.Or(i.Tag, i.Digest.String()))
}

func (i ImageInfo) repo() Repository { return Repository{Upstream: i.Upstream, Name: i.Repository} }

// Images lists the images in the cache, sorted by name. It waits for the scan of
// the folder, and reads all of the index, so it is for people and not for the
// way of a request.
func (s *Store) Images() ([]ImageInfo, error) {
	c, err := s.catalog()
	if err != nil {
		return nil, err
	}
	return c.images, nil
}

// Scanned is closed when it is known what is on disk, for which [Store.Images] and
// what else is said to wait for the scan do.
func (s *Store) Scanned() <-chan struct{} { return s.scanned }

// awaitScan blocks until it is known what is on disk.
func (s *Store) awaitScan() error {
	select {
	case <-s.scanned:
		return nil
	case <-s.ctx.Done():
		return ErrClosed
	}
}

// catalog is what the index said at one time. It belongs to one goroutine.
type catalog struct {
	recency   *recency.List
	manifests map[digest.Digest]records.Blob // those that are on disk
	members   map[Repository][]digest.Digest // of these, which each repository holds
	images    []ImageInfo
	used      map[digest.Digest]time.Time // when the manifests were
	whole     map[digest.Digest]bool      // what complete found out
}

// catalog reads the index and lists the images. It waits for the scan, without
// which it could not tell what is on disk.
func (s *Store) catalog() (*catalog, error) {
	if err := s.awaitScan(); err != nil {
		return nil, err
	}
	return s.readCatalog()
}

// readCatalog is catalog for who knows what is on disk.
func (s *Store) readCatalog() (*catalog, error) {
	c := &catalog{
		recency:   s.recency,
		manifests: make(map[digest.Digest]records.Blob),
		members:   make(map[Repository][]digest.Digest),
		whole:     make(map[digest.Digest]bool),
	}
	if err := c.readManifests(s.index); err != nil {
		return nil, err
	}
	if err := c.readTags(s.index); err != nil {
		return nil, err
	}
	if err := c.readMembers(s.index); err != nil {
		return nil, err
	}
	c.addUntagged()
	pinned, err := s.pins()
	if err != nil {
		return nil, err
	}
	verdicts, err := s.index.Verdicts()
	if err != nil {
		return nil, err
	}
	c.used, err = c.readUses(s.index)
	if err != nil {
		return nil, err
	}
	for i := range c.images {
		c.describe(&c.images[i])
		c.images[i].Pinned = isPinned(c.images[i], pinned)
	}
	c.judge(verdicts)
	slices.SortFunc(c.images, func(a, b ImageInfo) int { return cmp.Compare(a.Name(), b.Name()) })
	return c, nil
}

func (c *catalog) readManifests(ix *records.Index) error {
	return ix.EachManifest(func(d digest.Digest, rec records.Blob) error {
		if rec.IsManifest() && c.held(d) > 0 {
			c.manifests[d] = rec
		}
		return nil
	})
}

func (c *catalog) readTags(ix *records.Index) error {
	return ix.EachTag(func(repo Repository, tag string, rec records.Tag) error {
		c.images = append(c.images, ImageInfo{
			Upstream: repo.Upstream, Repository: repo.Name, Tag: tag,
			Digest: rec.Digest, Checked: rec.Checked,
		})
		return nil
	})
}

// addUntagged adds the manifests that nothing else in their repository leads
// to.
func (c *catalog) addUntagged() {
	reached := make(map[Repository][]digest.Digest)
	for _, img := range c.images {
		reached[img.repo()] = append(reached[img.repo()], img.Digest)
	}
	for repo, manifests := range c.members {
		named := c.closure(reached[repo]...)
		for _, d := range manifests {
			for _, child := range c.manifests[d].Children {
				named[child] = true
			}
		}
		for _, d := range manifests {
			if !named[d] {
				c.images = append(c.images, ImageInfo{Upstream: repo.Upstream, Repository: repo.Name, Digest: d})
			}
		}
	}
}

// readUses returns when the manifests were last used.
func (c *catalog) readUses(ix *records.Index) (map[digest.Digest]time.Time, error) {
	used := make(map[digest.Digest]time.Time)
	for d, rec := range c.manifests {
		used[d] = rec.Fetched
	}
	err := ix.EachUse(func(d digest.Digest, at int64) {
		if _, ok := used[d]; ok {
			used[d] = time.Unix(at, 0)
		}
	})
	for d := range used {
		if at, ok := c.recency.UsedSince(d); ok {
			used[d] = at
		}
	}
	return used, err
}

// describe fills in what follows from the manifest.
func (c *catalog) describe(img *ImageInfo) {
	img.MediaType = c.manifests[img.Digest].MediaType
	for d := range c.closure(img.Digest) {
		img.Bytes += c.held(d)
	}
	img.Complete = c.complete(img.Digest)
	if at := c.used[img.Digest]; !at.IsZero() {
		img.Used = at.UTC().Truncate(time.Second)
	}
}

// judge notes which images have expired.
func (c *catalog) judge(verdicts []Verdict) {
	expired := make(map[records.RepoDigest]*Expiry)
	for i := range verdicts {
		v := &verdicts[i]
		expired[records.RepoDigest{Repository: v.Repository, Digest: v.Digest}] = &v.Expiry
	}
	for i := range c.images {
		img := &c.images[i]
		img.Expired = expired[records.RepoDigest{Repository: img.repo(), Digest: img.Digest}]
	}
}

// closure is all that the images with these digests need, as far as it is known:
// themselves, and what the manifests that are here name.
func (c *catalog) closure(roots ...digest.Digest) map[digest.Digest]bool {
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

// complete reports whether an image, or one platform of an index, is all here.
// Documents cannot name each other in a circle: they name digests.
func (c *catalog) complete(d digest.Digest) bool {
	if known, ok := c.whole[d]; ok {
		return known
	}
	rec, ok := c.manifests[d]
	switch {
	case !ok:
	case rankOf(rec.MediaType) == recency.RankIndex:
		ok = slices.ContainsFunc(rec.Children, c.complete)
	default:
		ok = !slices.ContainsFunc(rec.Children, func(child digest.Digest) bool {
			return c.held(child) == 0 && child != child.Algorithm().FromBytes(nil)
		})
	}
	c.whole[d] = ok
	return ok
}

// held is what a complete blob takes on disk, or 0 where it is not here.
func (c *catalog) held(d digest.Digest) int64 {
	if it, ok := c.recency.Get(d); ok && !it.Partial {
		return it.Bytes
	}
	return 0
}

// Stats is the state of a store at one time. Sizes are in bytes.
type Stats struct {
	Bytes    int64 `json:"bytes"`    // what the folder takes
	MaxSize  int64 `json:"maxSize"`  // what it may take; 0 for any number
	Free     int64 `json:"free"`     // of the file system
	Blobs    int   `json:"blobs"`    // complete ones, manifests among them
	Partials int   `json:"partials"` // blobs on their way, whether a fill of them runs or not
	Images   int   `json:"images"`
	Pinned   int   `json:"pinned"` // of these
	Fills    int   `json:"fills"`  // that run
}

// Stats sums the store up. It reads as much as [Store.Images] does.
func (s *Store) Stats() (Stats, error) {
	images, err := s.Images()
	if err != nil {
		return Stats{}, err
	}
	partials, err := foundPartials(s.folder)
	if err != nil {
		return Stats{}, err
	}
	free, err := s.folder.Free()
	if err != nil && !errors.Is(err, unix.EROFS) {
		return Stats{}, err
	}
	st := Stats{
		Bytes:    s.space.Size(),
		MaxSize:  s.space.MaxSize(),
		Free:     free,
		Blobs:    s.recency.Len(),
		Partials: len(partials),
		Images:   len(images),
	}
	for _, p := range partials {
		if it, ok := s.recency.Get(p.Digest()); ok && it.Partial {
			st.Blobs--
		}
	}
	for _, img := range images {
		if img.Pinned {
			st.Pinned++
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	st.Fills = len(s.filling)
	return st, nil
}
