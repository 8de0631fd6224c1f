package bucket

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/larder-registry/larder/upstream"
	"github.com/larder-registry/larder/upstream/pace"
)

const (
	// maxDocument bounds a manifest, in bytes: that of the largest one.
	maxDocument = 4 << 20
	// documentTimeout bounds how long a manifest takes to come.
	documentTimeout = 3 * time.Second
)

// Registry is an upstream: upstream.Registry.
type Registry interface {
	Manifest(ctx context.Context, repository, reference string, head bool) (ocispec.Descriptor, []byte, error)
	BlobSize(ctx context.Context, repository string, dgst digest.Digest) (int64, error)
	List(ctx context.Context, repository, resource string, query url.Values) (http.Header, []byte, error)
}

// OpenBlob opens a range of an upstream's blob.
type OpenBlob func(ctx context.Context, repository string, dgst digest.Digest, part upstream.Range) (upstream.Content, error)

// Settings are those of a [Source]. All are required.
type Settings struct {
	// Host is the upstream's, as all nodes call it.
	Host     string
	Registry Registry
	OpenBlob OpenBlob
	// Timeout is how long a client waits for the upstream.
	Timeout time.Duration
	// Knows reports whether a repository may be given a blob or manifest that the upstream has, without a record that
	// says so.
	Knows func(repository string, d digest.Digest, isBlob bool) bool
	// TagChecked returns when this node has last learned what a tag names. The zero time means never.
	TagChecked func(repository, tag string) time.Time
	// Parts returns an image and what it names, as far as it is in the cache and the repository is proven to have it.
	Parts func(repository string, image digest.Digest) []digest.Digest
	// StaleIfError is how old a record of a tag may be that is used while the upstream does not answer.
	StaleIfError time.Duration
	// Aged is told how long ago the upstream has confirmed what an answer says.
	Aged func(ctx context.Context, age time.Duration)
}

// Source is an upstream before which the bucket is asked. Errors are those of the upstream. It is safe for concurrent
// use.
type Source struct {
	Settings
	bucket *Bucket
}

// Source returns an upstream before which the bucket is asked.
func (b *Bucket) Source(s Settings) *Source { return &Source{s, b} }

// mayGive reports whether a repository may be given an object.
func (s *Source) mayGive(ctx context.Context, repository string, d digest.Digest, isBlob bool) bool {
	if s.Knows(repository, d, isBlob) {
		return true
	}
	_, ok := s.bucket.member(ctx, s.Host, repository, d)
	return ok
}

// Manifest is for [Registry]. A tag is asked of the bucket only if the upstream does not answer.
func (s *Source) Manifest(ctx context.Context, repository, reference string, head bool) (ocispec.Descriptor, []byte, error) {
	if d := digest.Digest(reference); d.Validate() == nil {
		if desc, raw, err := s.manifest(ctx, repository, d, false); err == nil {
			return desc, raw, nil
		}
		desc, raw, err := s.Registry.Manifest(ctx, repository, reference, head)
		if err == nil && raw != nil {
			s.fetched(repository, d)
		}
		return desc, raw, err
	}
	desc, raw, err := s.askTag(ctx, repository, reference, head)
	switch {
	case err == nil && desc.Digest.Validate() == nil:
		if raw != nil {
			s.fetched(repository, desc.Digest)
		}
		s.bucket.enqueue(record{Upstream: s.Host, Repository: repository, Tag: reference, Digest: desc.Digest, Checked: time.Now()})
		s.putBack(repository, desc.Digest)
	case err != nil && ctx.Err() == nil && !isRefusal(err):
		if desc, raw, old := s.tagOf(ctx, repository, reference); old == nil {
			return desc, raw, nil
		}
	}
	return desc, raw, err
}

// askTag asks the upstream about a tag. It leaves time to ask the bucket before the client has waited too long.
func (s *Source) askTag(ctx context.Context, repository, tag string, head bool) (ocispec.Descriptor, []byte, error) {
	if len(s.bucket.sealKeys()) > 0 {
		bounded, cancel := context.WithTimeoutCause(ctx, s.Timeout-min(2*(s.bucket.Patience+documentTimeout), s.Timeout/2), errUpstreamSilent)
		defer cancel()
		ctx = bounded
	}
	return s.Registry.Manifest(ctx, repository, tag, head)
}

var errUpstreamSilent = errors.New("the upstream did not answer in time")

// tagOf returns the manifest that a tag named when a node last asked the upstream.
func (s *Source) tagOf(ctx context.Context, repository, tag string) (ocispec.Descriptor, []byte, error) {
	after := time.Now().Add(-s.StaleIfError)
	if known := s.TagChecked(repository, tag); known.After(after) {
		after = known
	}
	r, err := s.bucket.tag(ctx, s.Host, repository, tag, after)
	if err != nil {
		return ocispec.Descriptor{}, nil, err
	}
	desc, raw, err := s.manifest(ctx, repository, r.Digest, true)
	if err == nil {
		s.Aged(ctx, max(time.Since(r.Checked), 0))
	}
	return desc, raw, err
}

// manifest returns a manifest from the bucket. Its bytes match the digest; its media type is theirs to tell. isKnown says
// that the repository has it.
func (s *Source) manifest(ctx context.Context, repository string, d digest.Digest, isKnown bool) (ocispec.Descriptor, []byte, error) {
	c := content{s.Host, d}
	if s.bucket.passed.has(c) || !isKnown && !s.mayGive(ctx, repository, d, false) {
		return ocispec.Descriptor{}, nil, errPassed
	}
	ctx, cancel := context.WithTimeoutCause(ctx, documentTimeout, errSilent)
	defer cancel()
	object, size, _, err := s.bucket.open(ctx, c, 0, 0, 0)
	if err != nil {
		return ocispec.Descriptor{}, nil, err
	}
	defer object.Close()
	raw, err := io.ReadAll(io.LimitReader(object, maxDocument+1))
	switch {
	case err != nil:
		return ocispec.Descriptor{}, nil, err
	case len(raw) > maxDocument:
		err = fmt.Errorf("it has %d bytes, too many for a manifest", size)
	case d.Algorithm().FromBytes(raw) != d:
		err = errors.New("its bytes do not match the digest")
	}
	if err != nil {
		s.bucket.refute(c, err)
		return ocispec.Descriptor{}, nil, err
	}
	s.bucket.metrics.asked(resultDocument)
	return ocispec.Descriptor{Digest: d, Size: int64(len(raw))}, raw, nil
}

// BlobSize is for [Registry]. If the upstream does not answer, a record tells.
func (s *Source) BlobSize(ctx context.Context, repository string, d digest.Digest) (int64, error) {
	size, err := s.Registry.BlobSize(ctx, repository, d)
	if err != nil && ctx.Err() == nil && !isRefusal(err) {
		if r, ok := s.bucket.member(ctx, s.Host, repository, d); ok && r.Size > 0 {
			return r.Size, nil
		}
	}
	return size, err
}

// List is for [Registry]. Lists are the upstream's.
func (s *Source) List(ctx context.Context, repository, resource string, query url.Values) (http.Header, []byte, error) {
	return s.Registry.List(ctx, repository, resource, query)
}

// OpenBlob is for [OpenBlob].
func (s *Source) OpenBlob(ctx context.Context, repository string, d digest.Digest, part upstream.Range) (upstream.Content, error) {
	if content, err := s.blob(ctx, repository, d, part); err == nil {
		return content, nil
	}
	if ctx.Err() != nil {
		return upstream.Content{}, context.Cause(ctx)
	}
	content, err := s.Settings.OpenBlob(ctx, repository, d, part)
	if err == nil {
		s.fetched(repository, d)
	}
	return content, err
}

// blob opens a range of an object.
func (s *Source) blob(ctx context.Context, repository string, d digest.Digest, part upstream.Range) (upstream.Content, error) {
	c := content{s.Host, d}
	if s.bucket.passed.has(c) {
		return upstream.Content{}, errPassed
	}
	if _, background := pace.BackgroundOf(ctx); background {
		if err := s.bucket.Link.Postponed(); err != nil {
			return upstream.Content{}, err
		}
	}
	if !s.mayGive(ctx, repository, d, true) {
		return upstream.Content{}, errPassed
	}
	object, size, whole, err := s.bucket.open(ctx, c, part.Off, part.Len, part.Size)
	if err != nil {
		return upstream.Content{}, err
	}
	s.bucket.notes.gave(c)
	s.bucket.metrics.asked(resultBlob)
	return upstream.Content{Body: s.bucket.Link.Body(ctx, object), Whole: whole, Size: size}, nil
}

// fetched notes that the upstream sends what a repository has.
func (s *Source) fetched(repository string, d digest.Digest) {
	if s.bucket.Write {
		s.bucket.notes.fetched(record{Upstream: s.Host, Repository: repository, Digest: d, Checked: time.Now()})
	}
}

// putBack has an image that is in use here be put again, which the cache has and the bucket may have let expire.
func (s *Source) putBack(repository string, image digest.Digest) {
	r := record{Upstream: s.Host, Repository: repository, Digest: image, Checked: time.Now()}
	if !s.bucket.Write || s.bucket.writer.inUse.has(r.id()) {
		return
	}
	parts := s.Parts(repository, image)
	for _, d := range parts {
		r.Digest = d
		s.bucket.enqueue(r)
	}
	if len(parts) > 0 {
		r.Digest = image
		s.bucket.writer.inUse.add(r.id(), struct{}{}, putFor)
	}
}

// isRefusal reports whether an upstream has answered that it does not have something, or does not give it.
func isRefusal(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission)
}
