package bring

import (
	"context"
	"fmt"

	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/larder-registry/larder/cache"
	"github.com/larder-registry/larder/cache/manifest"
)

// maxDepth bounds how deep indexes are within each other.
const maxDepth = 4

// contents is what an image consists of for its platforms.
type contents struct {
	blobs     []ocispec.Descriptor // configurations and layers, each once
	platforms []string
	leftOut   []digest.Digest
}

// chooser finds out what an image consists of.
type chooser struct {
	contents
	image Image
	get   func(context.Context, digest.Digest) (cache.Manifest, error)
	seen  map[digest.Digest]bool
}

// choose finds out what an image consists of for its platforms. get returns its manifests.
func choose(ctx context.Context, root digest.Digest, image Image, get func(context.Context, digest.Digest) (cache.Manifest, error)) (*contents, error) {
	c := &chooser{image: image, get: get, seen: make(map[digest.Digest]bool)}
	if err := c.addManifest(ctx, root, maxDepth); err != nil {
		return nil, err
	}
	return &c.contents, nil
}

// LeftOut returns the manifests of an index, and of the indexes below it, that are not for these
// platforms, and those that are attached to an image: attestations and SOCI's indexes. read
// returns a manifest. The error names a platform that the index does not have, or is that of
// read.
func (p Platforms) LeftOut(root digest.Digest, read func(digest.Digest) ([]byte, error)) ([]digest.Digest, error) {
	c, err := choose(context.Background(), root, Image{Platforms: p}, func(_ context.Context, d digest.Digest) (cache.Manifest, error) {
		raw, err := read(d)
		return cache.Manifest{Digest: d, Raw: raw}, err
	})
	if err != nil {
		return nil, err
	}
	return c.leftOut, nil
}

func (c *chooser) addManifest(ctx context.Context, d digest.Digest, depth int) error {
	switch {
	case c.seen[d]:
		return nil
	case depth == 0:
		return fmt.Errorf("manifest %s: indexes are nested more than %d deep", d, maxDepth)
	}
	c.seen[d] = true
	m, err := c.get(ctx, d)
	if err != nil {
		return fmt.Errorf("manifest %s: %w", d, err)
	}
	blobs, entries, err := m.Named()
	if err != nil {
		return err
	}
	for _, blob := range blobs {
		if !c.seen[blob.Digest] {
			c.seen[blob.Digest] = true
			c.blobs = append(c.blobs, blob)
		}
	}
	chosen, err := c.chooseEntries(entries)
	if err != nil {
		return err
	}
	for _, entry := range chosen {
		if err := c.addManifest(ctx, entry.Digest, depth-1); err != nil {
			return err
		}
	}
	return nil
}

// chooseEntries chooses the manifests that an index lists: those for the platforms, and what is about
// them if referrers are wanted; and all that are not for a platform.
func (c *chooser) chooseEntries(entries []ocispec.Descriptor) (chosen []ocispec.Descriptor, err error) {
	var images []ocispec.Descriptor
	for _, entry := range entries {
		if isPlatform(entry) {
			images = append(images, entry)
		}
	}
	wanted, err := c.image.Platforms.choose(images)
	if err != nil {
		return nil, err
	}
	for _, entry := range entries {
		subject := manifest.AttachedTo(entry.Annotations)
		switch {
		case isPlatform(entry) && wanted[entry.Digest]:
			c.platforms = append(c.platforms, platforms.Format(*entry.Platform))
			chosen = append(chosen, entry)
		case isPlatform(entry),
			subject != "" && (!c.image.Referrers || !wanted[subject]):
			c.leftOut = append(c.leftOut, entry.Digest)
		default:
			chosen = append(chosen, entry)
		}
	}
	return chosen, nil
}

func isPlatform(entry ocispec.Descriptor) bool {
	return manifest.IsPlatform(entry.Platform, entry.ArtifactType)
}
