package proxy

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/larder-registry/larder/cache"
)

// Referrer is a manifest that refers to another one, such as a signature.
type Referrer struct {
	ocispec.Descriptor
	Subject digest.Digest // what it refers to
	// Tag is the tag by which clients find it: one of cosign's, or that of the index which
	// stands for the list where the registry has none. It is empty for one of a list.
	Tag string
}

const (
	// maxFetchedReferrers bounds the manifests that are fetched for one image.
	maxFetchedReferrers = 1000
	// maxReferrerDepth bounds how deep indexes are within each other.
	maxReferrerDepth = 4
)

// cosignTags are what cosign appends to the tag of a digest for its signatures, attestations
// and SBOMs. It looks for them whatever the registry can.
var cosignTags = []string{".sig", ".att", ".sbom"}

// CosignTags returns what cosign appends to the tag of a digest, see [cache.ReferrersTag].
func CosignTags() []string { return slices.Clone(cosignTags) }

// FetchReferrers caches what refers to an image, and to the manifests of its platforms that
// are cached: by the registry's lists, or the tags that stand for them, and by cosign's tags.
// Each referrer is fetched with all that it names. It returns those that are whole in the
// cache, also with an error, which says what could not be found out or fetched. Each request
// waits for the upstream's timeout at most.
func (p *Proxy) FetchReferrers(ctx context.Context, repo cache.Repository, image digest.Digest) ([]Referrer, error) {
	t, err := p.contentOf(ctx, route{digest: image}, repo)
	if err != nil {
		return nil, err
	}
	f := &referrersFetch{proxy: p, target: t, fetched: make(map[digest.Digest]error)}
	m, err := f.manifest(ctx, image)
	if err != nil {
		return nil, err
	}
	_, platforms, err := m.Named()
	if err != nil {
		return nil, err
	}
	subjects := []digest.Digest{image}
	for _, d := range platforms {
		if _, ok := p.store.ManifestHere(repo, d.Digest); ok {
			subjects = append(subjects, d.Digest)
		}
	}
	var errs []error
	for _, subject := range subjects {
		errs = append(errs, f.referrersOf(ctx, subject))
	}
	if err := errors.Join(errs...); err != nil {
		return f.found, fmt.Errorf("fetch the referrers of %s@%s: %w", repo, image, err)
	}
	return f.found, nil
}

// referrersFetch fetches the referrers of one image.
type referrersFetch struct {
	proxy *Proxy
	target
	found   []Referrer
	fetched map[digest.Digest]error // what was fetched with all that it names, or why it was not
}

// referrersOf fetches the referrers of one manifest.
func (f *referrersFetch) referrersOf(ctx context.Context, subject digest.Digest) error {
	list, err := f.list(ctx, subject)
	tags := cosignTags
	switch {
	case errors.Is(err, cache.ErrNoReferrers):
		tags = append([]string{""}, cosignTags...)
	case err != nil:
		return err
	}
	var errs []error
	for _, d := range list {
		errs = append(errs, f.add(ctx, Referrer{Descriptor: d, Subject: subject}))
	}
	for _, suffix := range tags {
		tag := cache.ReferrersTag(subject) + suffix
		m, err := f.tag(ctx, tag)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue
		case err != nil:
			errs = append(errs, err)
			continue
		}
		d := ocispec.Descriptor{MediaType: m.MediaType, Digest: m.Digest, Size: m.Size}
		if err := f.add(ctx, Referrer{Descriptor: d, Subject: subject, Tag: tag}); err != nil {
			errs = append(errs, err)
			continue
		}
		if suffix == "" {
			_, listed, err := m.Named()
			if err != nil {
				errs = append(errs, err)
			}
			for _, d := range listed { // they are whole, as the index is
				f.found = append(f.found, Referrer{Descriptor: d, Subject: subject})
			}
		}
	}
	return errors.Join(errs...)
}

// list returns the registry's list of referrers.
func (f *referrersFetch) list(ctx context.Context, subject digest.Digest) ([]ocispec.Descriptor, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, f.source.Timeout, errSlow)
	defer cancel()
	t := f.target
	t.digest = subject
	share := f.proxy.lists.memory.list(t.metricName())
	defer share.end()
	list, _, err := f.proxy.store.Referrers(ctx, t.repo, subject, f.proxy.lists.askReferrers(t, share))
	return list, err
}

// tag returns the manifest of a tag, which it caches.
func (f *referrersFetch) tag(ctx context.Context, tag string) (cache.Manifest, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, f.source.Timeout, errSlow)
	defer cancel()
	m, _, err := f.proxy.store.Tag(ctx, f.repo, tag, f.proxy.pulls.askManifest(f.target))
	return m, err
}

// manifest returns a manifest, which it caches.
func (f *referrersFetch) manifest(ctx context.Context, d digest.Digest) (cache.Manifest, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, f.source.Timeout, errSlow)
	defer cancel()
	m, _, err := f.proxy.store.Manifest(ctx, f.repo, d, f.proxy.pulls.askManifest(f.target))
	return m, err
}

// add fetches a referrer with all that it names.
func (f *referrersFetch) add(ctx context.Context, r Referrer) error {
	if err := f.fetch(ctx, r.Descriptor, maxReferrerDepth); err != nil {
		return err
	}
	f.found = append(f.found, r)
	return nil
}

// fetch caches a manifest with all that it names, once.
func (f *referrersFetch) fetch(ctx context.Context, d ocispec.Descriptor, depth int) error {
	err, known := f.fetched[d.Digest]
	switch {
	case known:
		return err
	case len(f.fetched) == maxFetchedReferrers || depth == 0:
		return fmt.Errorf("%s is left out: there are more than %d referrers, or indexes in more than %d others",
			d.Digest, maxFetchedReferrers, maxReferrerDepth)
	}
	err = f.fetchParts(ctx, d, depth)
	f.fetched[d.Digest] = err
	return err
}

func (f *referrersFetch) fetchParts(ctx context.Context, d ocispec.Descriptor, depth int) error {
	m, err := f.manifest(ctx, d.Digest)
	if err != nil {
		return err
	}
	blobs, manifests, err := m.Named()
	if err != nil {
		return err
	}
	for _, blob := range blobs {
		t := f.target
		t.digest = blob.Digest
		if _, err := f.proxy.store.Fetch(ctx, blob.Digest, f.proxy.pulls.source(t, blob.Size)); err != nil {
			return fmt.Errorf("%s: %w", d.Digest, err)
		}
	}
	for _, child := range manifests {
		if err := f.fetch(ctx, child, depth-1); err != nil {
			return err
		}
	}
	return nil
}
