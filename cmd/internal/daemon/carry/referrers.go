package carry

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/larder-registry/larder/cache"
	"github.com/larder-registry/larder/cache/bundle"
	"github.com/larder-registry/larder/proxy"
)

// referrers finds what refers to the manifests of an image, and holds it: referrers, and images
// by tags that stand for referrers.
func (a *API) referrers(ctx context.Context, hold *cache.Hold, f found) (referrers []digest.Digest, tags []ExportImage, err error) {
	find := a.opts.FetchReferrers
	if find == nil {
		find = func(ctx context.Context, repo cache.Repository, _ digest.Digest) ([]proxy.Referrer, error) {
			return a.referrersHere(ctx, repo, f.manifests)
		}
	}
	all, err := find(ctx, f.repo, f.Digest)
	if err != nil {
		return nil, nil, err
	}
	for _, r := range all {
		if !slices.Contains(f.manifests, r.Subject) {
			continue // it is about a platform that is left out
		}
		image := bundle.Image{Name: f.repo.Upstream + "/" + f.repo.Name + "@" + string(r.Digest), Digest: r.Digest}
		if r.Tag != "" {
			image.Name = f.repo.Upstream + "/" + f.repo.Name + ":" + r.Tag
		}
		plan, err := bundle.NewPlan([]bundle.Image{image}, bundle.Options{Manifest: manifests(hold)})
		if err == nil {
			err = holdAll(hold, plan.Description())
		}
		switch {
		case err != nil:
			return nil, nil, fmt.Errorf("%s, which refers to it: %w", image.Name, err)
		case r.Tag == "":
			referrers = append(referrers, r.Digest)
		default:
			_, confirmed, err := a.store.Resolve(f.repo, r.Tag)
			if err != nil {
				return nil, nil, err
			}
			tags = append(tags, ExportImage{Name: image.Name, Digest: r.Digest, Confirmed: confirmed})
		}
	}
	slices.Sort(referrers)
	return slices.Compact(referrers), tags, nil
}

// errNoDaemon is why no upstream is asked.
var errNoDaemon = errors.New("no daemon runs")

// referrersHere finds the referrers in the cache, as far as they are whole.
func (a *API) referrersHere(ctx context.Context, repo cache.Repository, subjects []digest.Digest) ([]proxy.Referrer, error) {
	ask := func(context.Context) ([]ocispec.Descriptor, error) { return nil, errNoDaemon }
	var all []proxy.Referrer
	for _, subject := range subjects {
		list, _, err := a.store.Referrers(ctx, repo, subject, ask)
		if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, errNoDaemon) {
			return nil, err
		}
		for _, d := range list {
			all = append(all, proxy.Referrer{Descriptor: d, Subject: subject})
		}
		for _, suffix := range append([]string{""}, proxy.CosignTags()...) {
			tag := cache.ReferrersTag(subject) + suffix
			switch d, _, err := a.store.Resolve(repo, tag); {
			case errors.Is(err, fs.ErrNotExist):
			case err != nil:
				return nil, err
			default:
				all = append(all, proxy.Referrer{Descriptor: ocispec.Descriptor{Digest: d}, Subject: subject, Tag: tag})
			}
		}
	}
	return all, nil
}
