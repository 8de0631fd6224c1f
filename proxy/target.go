package proxy

import (
	"cmp"
	"context"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/larder-registry/larder/cache"
	"github.com/larder-registry/larder/proxy/access"
)

// Upstream is a registry. Its errors are fs.ErrNotExist for what the registry does not
// have and fs.ErrPermission for what it refuses. They may wrap the registry's own
// errcode.Error, and an error with the methods
//
//	Throttled() bool           // the registry limits requests
//	RetryAfter() time.Duration // when it takes the next one; 0 if it does not say
//	Postponed() bool           // the registry must not be asked now: it is offline
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
	// Background marks the context of a question or a download that nobody waits for until
	// attended is closed, which may be nil. Nil means that these are like all others.
	Background func(ctx context.Context, attended <-chan struct{}) context.Context
	// For marks the context of a download for a client, by its address. Nil means not at all.
	For func(ctx context.Context, client string) context.Context
	// As marks the context of a question or a download with a client's credential: it is asked
	// with that, or with a token that the upstream has issued for it since a time. Login
	// asks whether the upstream accepts that one at all, as for a pull from a repository. Both
	// are set where the clients' own rights decide what they get. Nil means that all clients get
	// what the upstream lets this node have.
	As    func(ctx context.Context, c access.Credential, since time.Time) context.Context
	Login func(ctx context.Context, repository string) error
	// HasLogin reports whether the node has a login of its own.
	HasLogin func() bool
	// Name is the upstream's name in metrics. Many hosts may share one, so that there
	// are few. Empty means the host.
	Name string
}

// kind is the kind of resource that a request is for.
type kind string

const (
	kindBase      kind = "base" // /v2/ itself
	kindRoot      kind = "root" // for people who open the listener in a browser
	kindManifest  kind = "manifest"
	kindBlob      kind = "blob"
	kindTags      kind = "tags"
	kindReferrers kind = "referrers"
	kindToken     kind = "token"
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
	repo   cache.Repository
	source Source // its Upstream is nil until it is found
	client string // its address; "" if no client asks
	bare   bool   // the client named no registry, as classic Docker does

	unattended bool // nobody waits for the content

	user string     // of the client, or of its credential where its own rights decide
	why  access.Why // the client gets it, where its own rights decide
}

// metricName is the upstream's name in metrics. There are few.
func (t target) metricName() string { return cmp.Or(t.source.Name, t.repo.Upstream) }

// within returns a context under which admit is called before a large document is read.
func (t target) within(ctx context.Context, admit func(ctx context.Context, size int64) error) context.Context {
	if t.source.WithAdmission == nil {
		return ctx
	}
	return t.source.WithAdmission(ctx, admit)
}

// background returns a context for what nobody waits for until attended is closed, which may
// be nil.
func (t target) background(ctx context.Context, attended <-chan struct{}) context.Context {
	if t.source.Background == nil {
		return ctx
	}
	return t.source.Background(ctx, attended)
}

// ofClient returns a context for what is fetched for the client.
func (t target) ofClient(ctx context.Context) context.Context {
	if t.source.For == nil || t.client == "" {
		return ctx
	}
	return t.source.For(ctx, t.client)
}

// requested returns the repository's name as the client gave it.
func (t target) requested() string {
	if t.name != "" {
		return t.name
	}
	return t.host + "/" + t.rest
}

// clientAddress returns the address of a request's client, without the port.
func clientAddress(r *http.Request) string {
	host, _, _ := net.SplitHostPort(r.RemoteAddr) // without one it is ""
	return host
}
