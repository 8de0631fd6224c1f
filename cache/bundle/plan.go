package bundle

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Options say what goes into a bundle.
type Options struct {
	// Manifest returns a manifest or index, by its digest. It must be set.
	Manifest func(digest.Digest) ([]byte, error)
	// Include reports whether an entry of an index is included, by its digest and its platform.
	// The platform is nil for an attestation of BuildKit and an index of SOCI, which are left
	// out with the image that they are about; other entries without a platform are always
	// included. Nil includes all.
	Include func(digest.Digest, *ocispec.Platform) bool
	// Present reports whether the site has a blob, which is left out then. Nil means that it
	// has none.
	Present func(digest.Digest) bool
	// PartSize is how many bytes a part of the bundle may have; 0 for one part of any size.
	PartSize int64
}

// Plan is what a bundle will contain: everything but the signature and the content of blobs.
// It does not change, and may be used by several goroutines.
type Plan struct {
	description           *Description
	layout, index, docker []byte // docker is nil if no image is for Docker
}

// Description returns what the bundle says about itself.
func (p *Plan) Description() *Description { return p.description }

// NewPlan plans a bundle. Each image has Name, Digest, and Confirmed if that is known, and
// in Referrers the Digest of each manifest that is carried with it; NewPlan adds the rest.
// The same images, manifests and options make the same plan.
//
// A part gets whole blobs, those of one image next to each other, so that the first part
// often has whole images. A blob that is larger than a part is an error.
func NewPlan(images []Image, opts Options) (*Plan, error) {
	images = slices.Clone(images)
	slices.SortFunc(images, func(a, b Image) int { return strings.Compare(a.Name, b.Name) })
	c := collection{opts: opts, sizes: make(map[digest.Digest]int64)}
	for i := range images {
		if err := c.add(&images[i]); err != nil {
			return nil, fmt.Errorf("image %s: %w", images[i].Name, err)
		}
	}
	return c.plan(images)
}

// collection is what the images of a bundle consist of.
type collection struct {
	opts  Options
	blobs []Blob // in the order of the images
	// present are the blobs that the site has.
	present []Blob
	sizes   map[digest.Digest]int64
}

// add adds what an image consists of, and completes its description.
func (c *collection) add(image *Image) error {
	if err := checkName(image.Name); err != nil {
		return err
	}
	r := newReach(c.opts.Manifest, func(e choice) bool {
		return e.ofLeftOut || (e.Platform != nil || e.attached) && c.opts.Include != nil && !c.opts.Include(e.Digest, e.Platform)
	})
	if err := r.add(image.Digest, -1, 0); err != nil {
		return err
	}
	image.MediaType, image.Size = r.mediaType[image.Digest], r.seen[image.Digest]
	image.Platforms, image.LeftOut = r.platforms, r.leftOut
	image.Confirmed = image.Confirmed.UTC().Truncate(time.Second)
	image.Referrers = slices.Clone(image.Referrers)
	slices.SortFunc(image.Referrers, func(a, b Referrer) int { return cmp.Compare(a.Digest, b.Digest) })
	image.Referrers = slices.CompactFunc(image.Referrers, func(a, b Referrer) bool { return a.Digest == b.Digest })
	r.leave = nothing
	for i := range image.Referrers {
		if err := r.completeReferrer(&image.Referrers[i]); err != nil {
			return fmt.Errorf("referrer %s: %w", image.Referrers[i].Digest, err)
		}
	}
	for _, content := range r.all {
		if err := c.content(content); err != nil {
			return err
		}
	}
	return nil
}

func (c *collection) content(content Content) error {
	if size, ok := c.sizes[content.Digest]; ok {
		if size != content.Size {
			return fmt.Errorf("%s has %d bytes by one image and %d by another", content.Digest, size, content.Size)
		}
		return nil
	}
	c.sizes[content.Digest] = content.Size
	b := Blob{Digest: content.Digest, Size: content.Size, Manifest: content.Manifest}
	if c.opts.Present != nil && c.opts.Present(b.Digest) {
		c.present = append(c.present, b)
	} else {
		c.blobs = append(c.blobs, b)
	}
	return nil
}

// plan makes the documents. Docker reads one file only, so that manifest.json is made for a
// bundle of one part.
func (c *collection) plan(images []Image) (*Plan, error) {
	sortBlobs(c.present)
	p := &Plan{layout: layoutDocument(), index: indexDocument(images)}
	var err error
	if p.docker, err = c.dockerDocument(images); err != nil {
		return nil, err
	}
	whole := slices.Clone(c.blobs)
	for i := range whole {
		whole[i].Part = 1
	}
	if err := p.describe(images, whole, c.present, 1); err != nil {
		return nil, err
	}
	if c.opts.PartSize <= 0 || p.size(whole) <= c.opts.PartSize {
		return p, nil
	}
	p.docker = nil
	parts, err := p.split(images, c)
	if err != nil {
		return nil, err
	}
	return p, p.describe(images, c.blobs, c.present, parts)
}

// describe makes the description. It sorts the blobs.
func (p *Plan) describe(images []Image, blobs, present []Blob, parts int) error {
	blobs = slices.Clone(blobs)
	sortBlobs(blobs)
	p.description = &Description{
		Version: Version, Parts: parts,
		Files:  Files{Layout: digest.FromBytes(p.layout), Index: digest.FromBytes(p.index)},
		Images: images, Blobs: blobs, Present: present,
	}
	if p.docker != nil {
		p.description.Files.Docker = digest.FromBytes(p.docker)
	}
	return p.description.encode()
}

// split gives each blob of a collection its part, and returns how many there are.
func (p *Plan) split(images []Image, c *collection) (parts int, err error) {
	for i := range c.blobs {
		c.blobs[i].Part = maxParts // the longest number, so that the description is not larger later
	}
	if err := p.describe(images, c.blobs, c.present, maxParts); err != nil {
		return 0, err
	}
	head := p.size(nil)
	parts, free := 1, c.opts.PartSize-head
	for i := range c.blobs {
		b := &c.blobs[i]
		size := sizeOf(blobEntry(*b))
		if size > free {
			parts, free = parts+1, c.opts.PartSize-head
		}
		switch {
		case size > free:
			return 0, fmt.Errorf("blob %s has %d bytes, and does not fit into a part of %d bytes: "+
				"parts must have %d bytes at least", b.Digest, b.Size, c.opts.PartSize, head+size)
		case parts > maxParts:
			return 0, fmt.Errorf("there would be more than %d parts: make them larger", maxParts)
		}
		b.Part, free = parts, free-size
	}
	return parts, nil
}

func sortBlobs(blobs []Blob) {
	slices.SortFunc(blobs, func(a, b Blob) int { return cmp.Compare(a.Digest, b.Digest) })
}
