package proxy

import (
	"context"
	"fmt"
	"io/fs"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/cache"
	"github.com/larder-registry/larder/proxy/access"
	"github.com/larder-registry/larder/proxy/policy"
)

// The methods of this file fetch content that no client asked for. [cache.Unattended] marks
// their contexts if nobody waits for it: then requests of clients go first. Their errors are
// those of an [Upstream].

// AskTag asks the upstream which manifest a tag names, and caches that manifest. What clients
// get for the tag does not change: see [cache.Store.AskTag]. It waits for the upstream's
// timeout at most.
func (p *Proxy) AskTag(ctx context.Context, repo cache.Repository, tag string) (cache.Manifest, error) {
	return p.askTag(ctx, repo, tag, p.store.AskTag)
}

// AskTagNow is AskTag that no cooldown delays. by names the user who wants that, for the log.
func (p *Proxy) AskTagNow(ctx context.Context, by string, repo cache.Repository, tag string) (cache.Manifest, error) {
	return p.askTag(ctx, repo, tag, func(ctx context.Context, repo cache.Repository, tag string, ask cache.Ask) (cache.Manifest, error) {
		return p.store.AskTagNow(ctx, by, repo, tag, ask)
	})
}

func (p *Proxy) askTag(ctx context.Context, repo cache.Repository, tag string,
	question func(context.Context, cache.Repository, string, cache.Ask) (cache.Manifest, error)) (cache.Manifest, error) {
	t, err := p.contentOf(ctx, route{reference: tag}, repo)
	if err != nil {
		return cache.Manifest{}, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, t.source.Timeout, errSlow)
	defer cancel()
	return question(ctx, repo, tag, p.pulls.askManifest(t))
}

// FetchManifest returns a manifest, which it caches. It waits for the upstream's timeout at
// most.
func (p *Proxy) FetchManifest(ctx context.Context, repo cache.Repository, dgst digest.Digest) (cache.Manifest, error) {
	t, err := p.contentOf(ctx, route{digest: dgst}, repo)
	if err != nil {
		return cache.Manifest{}, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, t.source.Timeout, errSlow)
	defer cancel()
	m, _, err := p.store.Manifest(ctx, repo, dgst, p.pulls.askManifest(t))
	return m, err
}

// Verify returns what the policy says about an image, by tag or digest, which it caches; nil if no
// rule covers it: then nobody is asked. It waits for the upstream's timeout at most.
func (p *Proxy) Verify(ctx context.Context, repo cache.Repository, reference string) (*policy.Decision, error) {
	if p.pulls.judge.policy.Rule(repo.Upstream, repo.Name) == nil {
		return nil, nil
	}
	t, err := p.contentOf(ctx, route{reference: reference}, repo)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, t.source.Timeout, errSlow)
	defer cancel()
	var m cache.Manifest
	if dgst := digest.Digest(reference); dgst.Validate() == nil {
		m, _, err = p.store.Manifest(ctx, repo, dgst, p.pulls.askManifest(t))
	} else {
		m, _, err = p.store.Tag(ctx, repo, reference, p.pulls.askManifest(t))
	}
	if err != nil {
		return nil, err
	}
	return p.pulls.judge.verify(ctx, &p.pulls, t, m)
}

// FetchBlob caches a blob, and returns how many bytes that took, 0 if the blob was cached. size
// is the blob's in bytes, 0 if it is not known. A blob that the cache cannot keep is an error.
func (p *Proxy) FetchBlob(ctx context.Context, repo cache.Repository, dgst digest.Digest, size int64) (fetched int64, err error) {
	t, err := p.contentOf(ctx, route{digest: dgst}, repo)
	if err != nil {
		return 0, err
	}
	return p.store.Fetch(ctx, dgst, p.pulls.source(t, size))
}

// Prove asks the upstream of a repository whether it has what a manifest names and is in the
// cache, so that it can be served from there. It waits for the upstream's timeout at most.
func (p *Proxy) Prove(ctx context.Context, u cache.Unproven) error {
	t, err := p.contentOf(ctx, route{digest: u.Digest}, u.Repository)
	if err != nil {
		return fmt.Errorf("%w: %w", err, fs.ErrNotExist)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, t.source.Timeout, errSlow)
	defer cancel()
	if u.Manifest {
		_, _, err := p.store.Manifest(ctx, u.Repository, u.Digest, p.pulls.askManifest(t))
		return err
	}
	return p.pulls.source(t, 0).Member.Prove(ctx)
}

// contentOf is the target of content that no client asked for.
func (p *Proxy) contentOf(ctx context.Context, r route, repo cache.Repository) (target, error) {
	source, err := p.upstreams(repo.Upstream, repo.Name)
	if err != nil {
		return target{}, fmt.Errorf("%s: %w", repo, refusalOf(repo.Upstream, repo.Name, err))
	}
	source = p.rights.unattended(source, access.Repository(repo))
	return target{route: r, repo: repo, source: source, unattended: !cache.IsAttended(ctx)}, nil
}
