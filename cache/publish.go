package cache

import (
	"cmp"
	"context"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/cache/manifest"
	"github.com/larder-registry/larder/cache/recency"
	"github.com/larder-registry/larder/cache/records"
)

// ImportedImage is an image whose blobs and manifests an import has brought, or found here.
type ImportedImage struct {
	Repository Repository
	// Tag is empty for an image without one.
	Tag    string
	Digest digest.Digest
	// Confirmed is when the tag was last confirmed by its upstream. The zero time means now.
	Confirmed time.Time
	// Local says that the tag is not compared with its upstream: it is served as it is until
	// the image is removed, or imported again without this.
	Local bool
	// LeftOut are manifests of indexes that the import does not bring on purpose.
	LeftOut []digest.Digest
	// Referrers are manifests that come with the image, such as its signatures.
	Referrers []digest.Digest
	// Bundle names what brought the image, see [PinInfo]. If it is empty the image is not pinned.
	Bundle string
}

func (img ImportedImage) pin() records.Pin {
	return records.Pin{Repository: img.Repository, Reference: cmp.Or(img.Tag, img.Digest.String())}
}

// Publish makes an image visible, in one step: its tag, that the repository has all of it, and
// its pin, unless Bundle is empty. A crash leaves all of that or nothing. It refuses an image of
// which anything is missing, or does not match its digest or its size, but for what is left out;
// then nothing changes. What was put or reserved is not hashed again.
//
// The pin is like one by [Store.Pin]. One that is there already by hand stays so.
func (i *Import) Publish(ctx context.Context, img ImportedImage) error {
	s, name := i.store, img.pin()
	end, err := s.tasks.Begin()
	if err != nil {
		return err
	}
	defer end()
	c := newCollector(i, img)
	for _, d := range append([]digest.Digest{img.Digest}, img.Referrers...) {
		if err := c.addManifest(ctx, d, -1, recency.MaxDepth); err != nil {
			return fmt.Errorf("import %s: %w", name, err)
		}
	}
	if err := i.publish(img, c.Image); err != nil {
		return fmt.Errorf("import %s: %w", name, err)
	}
	for d, member := range c.Members {
		if member.Proven == records.Proven {
			s.prove(d, false, img.Repository)
		}
	}
	s.useParts(img.Digest)
	s.askForSnapshot()
	s.log.Info("imported", "image", name, "digest", img.Digest, "bundle", img.Bundle)
	return nil
}

// publish records an image and pins it.
func (i *Import) publish(img ImportedImage, rec records.Image) error {
	s, name := i.store, img.pin()
	write := func() error {
		s.tagging.Lock()
		defer s.tagging.Unlock()
		err := s.join(img.Repository, rec.Members, func(members map[digest.Digest]records.Member) error {
			rec.Members = members
			return s.index.Publish(rec)
		})
		if err == nil && rec.Name != "" {
			s.memory.tags.Add(tagID{img.Repository, rec.Name}, tagMemo{Tag: rec.Tag})
		}
		return err
	}
	if img.Bundle == "" {
		before, _ := s.tag(tagID{img.Repository, rec.Name})
		if err := write(); err != nil {
			return err
		}
		if rec.Name != "" {
			s.tagMoved(tagID{img.Repository, rec.Name}, before.Digest, img.Digest, len(before.pending.Moves) > 0)
		}
		return nil
	}
	own := make(map[digest.Digest]int64)
	for d := range rec.Members {
		it, _ := s.items.Get(d)
		own[d] = it.Bytes
	}
	i.mu.Lock()
	i.pinned = true
	i.mu.Unlock()
	return s.pins.AddHeld(name, img.Bundle, own, func(pin records.PinRecord) error {
		rec.Pin, rec.PinRecord = name, pin
		return write()
	})
}

// collector finds what an image consists of, and ensures that all of it is here and verified.
type collector struct {
	imp     *Import
	leftOut map[digest.Digest]bool
	records.Image
}

func newCollector(i *Import, img ImportedImage) *collector {
	c := &collector{imp: i, leftOut: make(map[digest.Digest]bool), Image: records.Image{
		Repository: img.Repository,
		Manifests:  make(map[digest.Digest]records.Blob),
		Members:    make(map[digest.Digest]records.Member),
	}}
	for _, d := range img.LeftOut {
		c.leftOut[d] = true
	}
	if img.Tag != "" {
		c.Name, c.Tag = img.Tag, records.Tag{Digest: img.Digest, Checked: img.Confirmed, Local: img.Local}
		if img.Confirmed.IsZero() {
			c.Tag.Checked = i.store.now()
		}
	}
	return c
}

// addManifest adds a manifest and everything below it. size is what the manifest that names it
// says, or -1.
func (c *collector) addManifest(ctx context.Context, d digest.Digest, size int64, depth int) error {
	s := c.imp.store
	if err := c.require(ctx, d, size); err != nil {
		return fmt.Errorf("manifest %w", err)
	}
	if _, done := c.Manifests[d]; done {
		return nil
	}
	if depth < 0 {
		return fmt.Errorf("manifest %s: indexes are nested more than %d deep", d, recency.MaxDepth)
	}
	m, parts, err := manifest.ReadFile(s.folder.Blob(d), d)
	if err != nil {
		return fmt.Errorf("manifest %s: %w", d, err)
	}
	if err := c.makeManifest(ctx, m); err != nil {
		return fmt.Errorf("manifest %s: %w", d, err)
	}
	fetched := s.now()
	if known, err := s.index.Blob(d); err == nil && !known.Fetched.IsZero() {
		fetched = known.Fetched
	}
	c.Manifests[d] = m.Record(parts, fetched)
	c.addMember(d, records.Member{Size: m.Size, Manifest: true, Role: records.ManifestOnly, Proven: records.Proven})
	for _, child := range parts.Children {
		rec := records.Member{Size: child.Size, Manifest: child.Manifest, Proven: records.Proven}
		if child.Manifest {
			rec.Role = records.ManifestOnly
		}
		switch {
		case child.Manifest && c.leftOut[child.Digest]:
			rec.Proven = records.ByWord
		case child.Manifest:
			err = c.addManifest(ctx, child.Digest, child.Size, depth-1)
		default:
			err = c.require(ctx, child.Digest, child.Size)
		}
		if err != nil {
			return err
		}
		c.addMember(child.Digest, rec)
	}
	return nil
}

// makeManifest makes the file of a manifest that came as a blob that of a manifest.
func (c *collector) makeManifest(ctx context.Context, m Manifest) error {
	info, err := os.Lstat(c.imp.store.folder.Blob(m.Digest))
	if err != nil || info.Mode().Perm() == manifestMode {
		return err
	}
	return c.imp.putManifest(ctx, m.Digest, m.Raw)
}

// addMember adds a membership to what is known of the digest from other manifests.
func (c *collector) addMember(d digest.Digest, rec records.Member) {
	if known, ok := c.Members[d]; ok {
		rec = rec.With(known)
	}
	c.Members[d] = rec
}

// require ensures that a blob is here, verified, and of this size, unless that is -1.
func (c *collector) require(ctx context.Context, d digest.Digest, size int64) error {
	i := c.imp
	if err := CheckDigest(d); err != nil {
		return fmt.Errorf("%q: %w", d, err)
	}
	if isEmpty(d) {
		return nil
	}
	onDisk, err := i.store.blobs.Stat(d)
	switch {
	case err != nil:
		return fmt.Errorf("%s is missing: %w", d, fs.ErrNotExist)
	case size >= 0 && onDisk != size:
		return fmt.Errorf("%s has %d bytes, and a manifest says %d: %w", d, onDisk, size, ErrMismatch)
	case i.isVerified(d):
		return nil
	}
	if _, err := i.Reserve(ctx, []ImportBlob{{d, onDisk}}, nil); err != nil {
		return err
	}
	if !i.has(d) {
		return fmt.Errorf("%s was damaged, and has been removed: %w", d, fs.ErrNotExist)
	}
	return nil
}
