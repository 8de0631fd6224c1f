package bring

import (
	"context"
	"errors"
	"fmt"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/larder-registry/larder/cache"
	"github.com/larder-registry/larder/upstream/name"
)

// FetchMissing fetches the manifests and blobs in missing that an image consists of. roots are
// its own manifest and those of its referrers. read reads manifests that are in the cache. No
// other manifest is fetched, such as one of a platform that is not wanted. What is missing and
// the image does not name is ignored. report is called as by Bring.
func (b *Bringer) FetchMissing(
	ctx context.Context, image name.Image, roots []digest.Digest, missing map[digest.Digest]bool,
	read func(digest.Digest) ([]byte, error), report func([]Progress),
) error {
	repo, meter := cache.Repository{Upstream: image.Host, Name: image.Repository}, NewMeter(image.String())
	defer b.reporting([]*Meter{meter}, report)()
	defer meter.end()
	f := missingFinder{bringer: b, repo: repo, missing: missing, read: read, seen: make(map[digest.Digest]bool)}
	var errs []error
	for _, root := range roots {
		errs = append(errs, f.find(ctx, root, maxDepth))
	}
	meter.plan(f.blobs)
	_, err := b.fetchBlobs(ctx, repo, &contents{blobs: f.blobs}, meter)
	return errors.Join(append(errs, err)...)
}

// missingFinder finds the missing blobs of an image. It fetches missing manifests.
type missingFinder struct {
	bringer *Bringer
	repo    cache.Repository
	missing map[digest.Digest]bool
	read    func(digest.Digest) ([]byte, error)
	seen    map[digest.Digest]bool
	blobs   []ocispec.Descriptor // that are missing
}

func (f *missingFinder) find(ctx context.Context, d digest.Digest, depth int) error {
	if f.seen[d] || depth == 0 {
		return nil
	}
	f.seen[d] = true
	raw, err := f.read(d)
	m := cache.Manifest{Digest: d, Raw: raw}
	switch {
	case err == nil:
	case !f.missing[d]:
		return nil
	default:
		m, err = f.bringer.proxy.FetchManifest(ctx, f.repo, d)
	}
	if err != nil {
		return fmt.Errorf("manifest %s: %w", d, err)
	}
	blobs, entries, err := m.Named()
	if err != nil {
		return err
	}
	f.add(blobs...)
	var errs []error
	for _, entry := range entries {
		errs = append(errs, f.find(ctx, entry.Digest, depth-1))
	}
	return errors.Join(errs...)
}

func (f *missingFinder) add(blobs ...ocispec.Descriptor) {
	for _, blob := range blobs {
		if f.missing[blob.Digest] && !f.seen[blob.Digest] {
			f.seen[blob.Digest] = true
			f.blobs = append(f.blobs, blob)
		}
	}
}
