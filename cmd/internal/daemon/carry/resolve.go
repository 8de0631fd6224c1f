package carry

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/larder-registry/larder/cache"
	"github.com/larder-registry/larder/cache/bundle"
	"github.com/larder-registry/larder/cmd/internal/daemon/bring"
	"github.com/larder-registry/larder/upstream/name"
)

// choice says which entries of indexes an export wants.
type choice struct {
	platforms *bring.Platforms // nil for those that are whole in the cache
	// referrers says that the attestations of these platforms are needed. Otherwise those that
	// are whole in the cache are taken.
	referrers bool
}

// choose returns what an export wants.
func (a *API) choose(req ExportRequest) (choice, error) {
	wanted := choice{referrers: req.Referrers && a.opts.Bringer != nil}
	if len(req.Platforms) == 0 {
		return wanted, nil
	}
	platforms, err := bring.ParsePlatforms(req.Platforms)
	wanted.platforms = &platforms
	return wanted, err
}

// parse returns the repository and the reference of a full name.
func parse(image string) (repo cache.Repository, reference string, err error) {
	parsed, err := name.ParseImage(image)
	return cache.Repository{Upstream: parsed.Host, Name: parsed.Repository}, parsed.Reference(), err
}

// found is an image that is whole in the cache.
type found struct {
	ExportImage
	repo      cache.Repository
	manifests []digest.Digest // of the image, without what is left out
}

var errNotCached = errors.New("no such image in the cache")

// find finds an image in the cache, and holds it.
func (a *API) find(hold *cache.Hold, image string, wanted choice) (f found, err error) {
	var reference string
	if f.repo, reference, err = parse(image); err != nil {
		return f, err
	}
	f.Name = image
	f.Digest, f.Confirmed, err = a.store.Resolve(f.repo, reference)
	if errors.Is(err, fs.ErrNotExist) {
		err = errNotCached
	}
	if err != nil {
		return f, err
	}
	read := manifests(hold)
	var left []digest.Digest
	if wanted.platforms != nil {
		left, err = wanted.platforms.LeftOut(f.Digest, read)
	}
	var plan *bundle.Plan
	if err == nil {
		plan, err = bundle.NewPlan([]bundle.Image{{Name: image, Digest: f.Digest}}, bundle.Options{
			Manifest: read,
			Include: func(d digest.Digest, p *ocispec.Platform) bool {
				switch {
				case p != nil && wanted.platforms != nil:
					return !slices.Contains(left, d)
				case p == nil && wanted.referrers:
					return true
				}
				return a.isWhole(hold, d)
			},
		})
	}
	if errors.Is(err, fs.ErrNotExist) {
		return f, fmt.Errorf("it is not whole in the cache: %w", err)
	}
	if err != nil {
		return f, err
	}
	described := plan.Description()
	for _, left := range described.Images[0].LeftOut {
		f.LeftOut = append(f.LeftOut, left.Digest)
	}
	for _, b := range described.Blobs {
		if b.Manifest {
			f.manifests = append(f.manifests, b.Digest)
		}
	}
	return f, holdAll(hold, described)
}

// holdAll holds what an image consists of. It returns an error if some of it is missing.
func holdAll(hold *cache.Hold, described *bundle.Description) error {
	var contents []digest.Digest
	for _, b := range described.Blobs {
		contents = append(contents, b.Digest)
	}
	missing, err := hold.Add(contents...)
	if err != nil || len(missing) == 0 {
		return err
	}
	var bytes int64
	for _, d := range missing {
		b, _ := described.Blob(d)
		bytes += b.Size
	}
	return fmt.Errorf("it is not whole in the cache: %d of its %d blobs with %d bytes are missing, such as %s",
		len(missing), len(contents), bytes, missing[0])
}

// isWhole reports whether a manifest is in the cache with everything that it consists of.
func (a *API) isWhole(hold *cache.Hold, d digest.Digest) bool {
	plan, err := bundle.NewPlan([]bundle.Image{{Name: string(d), Digest: d}}, bundle.Options{Manifest: manifests(hold)})
	if err != nil {
		return false
	}
	for _, b := range plan.Description().Blobs {
		if _, err := a.store.Stat(b.Digest); err != nil && b.Size > 0 {
			return false
		}
	}
	return true
}

// manifests returns manifests of the cache.
func manifests(hold *cache.Hold) func(digest.Digest) ([]byte, error) {
	return func(d digest.Digest) ([]byte, error) {
		blob, err := hold.Open(d)
		if err != nil {
			return nil, withoutPath(d, err)
		}
		defer blob.Close()
		if blob.Size > cache.MaxManifest {
			return nil, fmt.Errorf("%s has %d bytes, and a manifest may have %d", d, blob.Size, cache.MaxManifest)
		}
		raw, err := io.ReadAll(blob)
		return raw, withoutPath(d, err)
	}
}

// withoutPath returns the error of a blob's file with the digest in place of the path, which is
// nothing to clients.
func withoutPath(d digest.Digest, err error) error {
	if at, ok := errors.AsType[*fs.PathError](err); ok {
		return fmt.Errorf("blob %s: %w", d, at.Err)
	}
	return err
}
