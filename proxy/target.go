package proxy

import (
	"context"
	"net/http"
	"net/url"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/larder-registry/larder/cache"
)

// Upstream is a registry. Its errors are fs.ErrNotExist for what the registry does not
// have and fs.ErrPermission for what it refuses. They may wrap the registry's own
// errcode.Error, and an error with the methods
//
//	Throttled() bool           // the registry limits requests
//	RetryAfter() time.Duration // when it takes the next one; 0 if it does not say
//	Unsupported() bool         // the registry has no such resource, by whatever status
//	DenialAttrs() []slog.Attr  // what the log says about a refusal
type Upstream interface {
	// Manifest returns a manifest by tag or digest. With head, the descriptor is
	// enough.
	Manifest(ctx context.Context, repository, reference string, head bool) (ocispec.Descriptor, []byte, error)
	// BlobSize returns the size of a blob that the repository has, or -1 if the
	// registry does not say.
	BlobSize(ctx context.Context, repository string, dgst digest.Digest) (int64, error)
	// List returns a page of tags/list or referrers/<digest>.
	List(ctx context.Context, repository, resource string, query url.Values) (http.Header, []byte, error)
}

// OpenBlob opens a range of a blob of a repository. Its errors are those of an
// [Upstream].
type OpenBlob func(ctx context.Context, repository string, dgst digest.Digest, part cache.Range) (cache.Content, error)

// Source is an upstream with its settings.
type Source struct {
	Upstream
	// OpenBlob opens a range of a blob at the upstream.
	OpenBlob OpenBlob
	// Timeout bounds how long a client waits for the upstream.
	Timeout time.Duration
	// WithAdmission returns a context under which Upstream calls admit before it reads a
	// document of some 64 KiB or more, with its size in bytes. Nil means that large
	// documents are bounded while they are decoded only.
	WithAdmission func(ctx context.Context, admit func(ctx context.Context, size int64) error) context.Context
	// Name is the upstream's name in metrics. Many hosts may share one, so that there
	// are few. Empty means the host.
	Name string
}

// kind is the kind of resource that a request is for.
type kind string

const (
	kindBase      kind = "base" // /v2/ itself
	kindManifest  kind = "manifest"
	kindBlob      kind = "blob"
	kindTags      kind = "tags"
	kindReferrers kind = "referrers"
)

// route is what the path and the query of a request say, parsed and valid.
type route struct {
	kind kind
	// namespace is the parameter ns: the host of the registry that the client means.
	namespace string
	// host is the first element of the path if it can be a registry's host. rest is
	// the repository after it.
	host, rest string
	// name is the whole path as a repository. It is empty if that is invalid, for example
	// because it begins with a host that has a port.
	name string
	// reference is a tag or a digest; digest is set if it is a digest.
	reference string
	digest    digest.Digest
}

// target is what a request is for: a route with the upstream that serves it.
type target struct {
	route
	repo     cache.Repository
	upstream Upstream                                                                                     // nil until it is found
	openBlob OpenBlob                                                                                     // of the upstream
	admitted func(ctx context.Context, admit func(ctx context.Context, size int64) error) context.Context // or nil
	timeout  time.Duration
	label    string // of the upstream, in metrics
	bare     bool   // the client named no registry, as classic Docker does
}

// from sets the upstream.
func (t *target) from(s Source) {
	t.upstream, t.openBlob, t.admitted, t.timeout, t.label = s.Upstream, s.OpenBlob, s.WithAdmission, s.Timeout, s.Name
}

// within returns a context under which documents are read within a share of the memory.
func (t target) within(ctx context.Context, s *share) context.Context {
	if t.admitted == nil {
		return ctx
	}
	return t.admitted(ctx, s.read)
}

// requested returns the repository's name as the client gave it.
func (t target) requested() string {
	if t.name != "" {
		return t.name
	}
	return t.host + "/" + t.rest
}
