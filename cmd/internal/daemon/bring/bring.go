package bring

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"

	"github.com/larder-registry/larder/cache"
	"github.com/larder-registry/larder/proxy"
	"github.com/larder-registry/larder/upstream/name"
)

const (
	// imagesAtOnce and blobsAtOnce bound what one call fetches at the same time: a large blob
	// has several connections of its own, and small ones wait for round trips.
	imagesAtOnce = 2
	blobsAtOnce  = 3
	// reportEvery is the time between two reports of the progress.
	reportEvery = 200 * time.Millisecond
)

// Bringer brings images. Its methods may be called from several goroutines at once.
type Bringer struct {
	proxy *proxy.Proxy
	store *cache.Store
	log   *slog.Logger
}

// New returns a Bringer that fetches through a proxy into the proxy's store.
func New(p *proxy.Proxy, store *cache.Store, log *slog.Logger) *Bringer {
	return &Bringer{proxy: p, store: store, log: log}
}

// Image is an image to bring.
type Image struct {
	name.Image
	Platforms Platforms // of an index
	// Referrers asks for what refers to the image, too: signatures, attestations and SBOMs.
	Referrers bool
	// NowFor names the user for whom a tag is followed though tags.cooldown delays it. It is
	// empty if the cooldown holds.
	NowFor string
}

func (i Image) repository() cache.Repository {
	return cache.Repository{Upstream: i.Host, Name: i.Repository}
}

// Result is what came of bringing an image.
type Result struct {
	Image  string        `json:"image"` // its full name
	Digest digest.Digest `json:"digest,omitempty"`
	// Platforms are those of an index that are here, and LeftOut are the manifests that it
	// names and that were not asked for.
	Platforms []string        `json:"platforms,omitempty"`
	LeftOut   []digest.Digest `json:"leftOut,omitempty"`
	Bytes     int64           `json:"bytes"`   // of all blobs that were asked for
	Fetched   int64           `json:"fetched"` // of these, from the upstream
	Referrers int             `json:"referrers,omitempty"`
	// Err is why the image is not whole, or its referrers are not all here. What it names
	// else is here.
	Err error `json:"-"`
}

// Bring brings images, a few at a time, also after one has failed, and returns the results in
// their order. A tag that has moved names its new image for clients when that is whole. report,
// unless it is nil, is called several times a second with the progress of all images, in the
// same order, by one goroutine at a time.
func (b *Bringer) Bring(ctx context.Context, images []Image, report func([]Progress)) []Result {
	results := make([]Result, len(images))
	meters := make([]*Meter, len(images))
	for i, image := range images {
		meters[i] = NewMeter(image.String())
	}
	defer b.reporting(meters, report)()
	var group errgroup.Group
	group.SetLimit(imagesAtOnce)
	for i, image := range images {
		group.Go(func() error {
			results[i] = b.bring(ctx, image, meters[i])
			meters[i].end()
			return nil
		})
	}
	_ = group.Wait() // the results have the errors
	return results
}

// bring brings one image.
func (b *Bringer) bring(ctx context.Context, image Image, meter *Meter) Result {
	root, confirmed, err := b.Resolve(ctx, image)
	if err != nil {
		return Result{Image: image.String(), Err: err}
	}
	result := b.Fetch(ctx, image, root, meter)
	if result.Err == nil && image.Digest == "" {
		result.Err = b.store.SetTag(image.repository(), image.Tag, root, confirmed)
	}
	return result
}

// Resolve returns the digest of an image: for a tag, what the upstream says now, and when it said
// that. During a cooldown it returns what the tag still stands for, unless Image.NowFor is set. What
// clients get for the tag does not change. The manifest is in the cache then. The error is
// fs.ErrNotExist if the upstream has no such image.
func (b *Bringer) Resolve(ctx context.Context, image Image) (root digest.Digest, confirmed time.Time, err error) {
	confirmed = time.Now()
	if image.Digest != "" {
		return image.Digest, confirmed, nil
	}
	var m cache.Manifest
	if image.NowFor == "" {
		m, err = b.proxy.AskTag(ctx, image.repository(), image.Tag)
	} else {
		m, err = b.proxy.AskTagNow(ctx, image.NowFor, image.repository(), image.Tag)
	}
	if err != nil {
		return "", confirmed, err
	}
	return m.Digest, confirmed, nil
}

// FetchManifests fetches the manifests that are missing of an image, of which root is the
// digest: then the cache knows how large the image is.
func (b *Bringer) FetchManifests(ctx context.Context, image Image, root digest.Digest) error {
	_, err := b.choose(ctx, image, root)
	return err
}

// FetchAllManifests is FetchManifests for all platforms of an image that is in the cache, by a tag
// or a digest. It does nothing for another image.
func (b *Bringer) FetchAllManifests(ctx context.Context, repo cache.Repository, reference string) error {
	root, _, err := b.store.Resolve(repo, reference)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return b.FetchManifests(ctx, Image{
		Image: name.Image{Host: repo.Upstream, Repository: repo.Name, Digest: root}, Platforms: Platforms{all: true}, Referrers: true,
	}, root)
}

// choose finds out what an image consists of for its platforms. It fetches manifests that are
// missing.
func (b *Bringer) choose(ctx context.Context, image Image, root digest.Digest) (*contents, error) {
	return choose(ctx, root, image, func(ctx context.Context, d digest.Digest) (cache.Manifest, error) {
		return b.proxy.FetchManifest(ctx, image.repository(), d)
	})
}

// Fetch fetches what is missing of an image, of which root is the digest. meter, unless it is
// nil, tells the progress. Clients get what they got before for the image's tag.
func (b *Bringer) Fetch(ctx context.Context, image Image, root digest.Digest, meter *Meter) Result {
	result := Result{Image: image.String(), Digest: root}
	if meter == nil {
		meter = NewMeter(image.String())
	}
	repo := image.repository()
	c, err := b.choose(ctx, image, root)
	if err != nil {
		result.Err = err
		return result
	}
	result.Platforms, result.LeftOut = c.platforms, c.leftOut
	meter.plan(c.blobs)
	for _, blob := range c.blobs {
		result.Bytes += blob.Size
	}
	if result.Fetched, err = b.fetchBlobs(ctx, repo, c, meter); err == nil && image.Referrers {
		var found []proxy.Referrer
		found, err = b.proxy.FetchReferrers(ctx, repo, root)
		result.Referrers = len(found)
	}
	if err == nil && !b.IsWhole(image, root) {
		err = errEvicted
	}
	result.Err = err
	return result
}

var errEvicted = errors.New("some of it was evicted again while the rest was fetched: the cache is too small (cache.max_size) for what is wanted at once")

// fetchBlobs fetches blobs, a few at a time, until one fails.
func (b *Bringer) fetchBlobs(ctx context.Context, repo cache.Repository, c *contents, meter *Meter) (fetched int64, err error) {
	group, fetching := errgroup.WithContext(ctx)
	group.SetLimit(blobsAtOnce)
	for _, blob := range c.blobs {
		group.Go(func() error {
			if err := fetching.Err(); err != nil {
				return err
			}
			n, err := b.proxy.FetchBlob(fetching, repo, blob.Digest, blob.Size)
			if err != nil {
				return fmt.Errorf("blob %s: %w", blob.Digest, err)
			}
			meter.done(blob, n)
			return nil
		})
	}
	err = group.Wait()
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return meter.bytesFetched(), err
}

// IsWhole reports whether an image, of which root is the digest, is whole in the cache. It
// asks no upstream, and does not look for referrers.
func (b *Bringer) IsWhole(image Image, root digest.Digest) bool {
	c, err := choose(context.Background(), root, image, func(_ context.Context, d digest.Digest) (cache.Manifest, error) {
		if m, ok := b.store.ManifestHere(image.repository(), d); ok {
			return m, nil
		}
		return cache.Manifest{}, errNotHere
	})
	if err != nil {
		return false
	}
	for _, blob := range c.blobs {
		if _, err := b.store.Stat(blob.Digest); err != nil && blob.Size > 0 {
			return false
		}
	}
	return true
}

var errNotHere = errors.New("it is not in the cache")
