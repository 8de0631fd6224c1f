package proxy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sync/atomic"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/larder-registry/larder/cache"
	"github.com/larder-registry/larder/proxy/policy"
)

// Attachments reads what is attached to images, such as their signatures, as clients get it: from the
// cache, or from the upstream. It is safe for concurrent use. Each question waits for the upstream's timeout at
// most. The error is fs.ErrNotExist only if the upstream says that there is nothing.
type Attachments struct{ proxy *Proxy }

// Attachments returns the attachments of the images that this proxy serves.
func (p *Proxy) Attachments() *Attachments { return &Attachments{p} }

// maxAttachment bounds a blob that is read into memory, in bytes. Signatures have some kB, and SBOMs,
// which nothing reads here, some MB.
const maxAttachment = 4 << 20

// stalenessKey is the key of a context's flag: an answer was not confirmed.
type stalenessKey struct{}

// NoteStale returns a context, and a function that reports whether an answer under it could not be
// confirmed by the upstream: then something may be missing from it.
func NoteStale(ctx context.Context) (context.Context, func() bool) {
	stale := new(atomic.Bool)
	return context.WithValue(ctx, stalenessKey{}, stale), stale.Load
}

func note(ctx context.Context, state cache.State) {
	if stale, ok := ctx.Value(stalenessKey{}).(*atomic.Bool); ok && state == cache.Stale {
		stale.Store(true)
	}
}

// asked returns an error of which fs.ErrNotExist means that the upstream has said so: one that must
// not be asked says nothing.
func asked(err error) error {
	if cache.IsPostponed(err) {
		return errors.New(err.Error())
	}
	return err
}

// Referrers lists what refers to an image: by the registry's list or, where it has none, by the tag that
// stands for it.
func (a *Attachments) Referrers(ctx context.Context, image policy.Image) ([]ocispec.Descriptor, error) {
	t, err := a.target(ctx, image)
	if err != nil {
		return nil, err
	}
	bounded, cancel := context.WithTimeoutCause(ctx, t.source.Timeout, errSlow)
	defer cancel()
	share := a.proxy.lists.memory.list(t.metricName())
	defer share.end()
	list, state, err := a.proxy.store.Referrers(bounded, t.repo, image.Digest, a.proxy.lists.askReferrers(t, share))
	note(ctx, state)
	if !errors.Is(err, cache.ErrNoReferrers) {
		return list, asked(err)
	}
	m, err := a.manifest(ctx, t, cache.ReferrersTag(image.Digest))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	_, list, err = m.Named()
	return list, err
}

// Manifest returns a manifest of an image's repository, by tag or digest.
func (a *Attachments) Manifest(ctx context.Context, image policy.Image, reference string) (ocispec.Descriptor, []byte, error) {
	t, err := a.target(ctx, image)
	if err != nil {
		return ocispec.Descriptor{}, nil, err
	}
	m, err := a.manifest(ctx, t, reference)
	return ocispec.Descriptor{MediaType: m.MediaType, Digest: m.Digest, Size: m.Size}, m.Raw, err
}

// Blob returns a blob of an image's repository, of 4 MiB at most.
func (a *Attachments) Blob(ctx context.Context, image policy.Image, dgst digest.Digest) ([]byte, error) {
	t, err := a.target(ctx, image)
	if err != nil {
		return nil, err
	}
	t.digest = dgst
	ctx, cancel := context.WithTimeoutCause(ctx, t.source.Timeout, errSlow)
	defer cancel()
	blob, err := a.proxy.pulls.open(ctx, t)
	if err != nil {
		return nil, asked(err)
	}
	defer blob.Close()
	if blob.Size > maxAttachment {
		return nil, fmt.Errorf("blob %s of %s has %d bytes, and an attachment may have %d", dgst, t.repo, blob.Size, maxAttachment)
	}
	var content bytes.Buffer
	if blob.Content != nil {
		return bytes.Clone(blob.Content), nil
	}
	_, err = io.Copy(&content, blob.ReadSeeker)
	return content.Bytes(), err
}

func (a *Attachments) target(ctx context.Context, image policy.Image) (target, error) {
	return a.proxy.contentOf(ctx, route{digest: image.Digest}, cache.Repository{Upstream: image.Host, Name: image.Repository})
}

func (a *Attachments) manifest(ctx context.Context, t target, reference string) (m cache.Manifest, err error) {
	bounded, cancel := context.WithTimeoutCause(ctx, t.source.Timeout, errSlow)
	defer cancel()
	var state cache.State
	if dgst := digest.Digest(reference); dgst.Validate() == nil {
		m, state, err = a.proxy.store.Manifest(bounded, t.repo, dgst, a.proxy.pulls.askManifest(t))
	} else {
		m, state, err = a.proxy.store.Tag(bounded, t.repo, reference, a.proxy.pulls.askManifest(t))
	}
	note(ctx, state)
	return m, asked(err)
}
