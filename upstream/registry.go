package upstream

import (
	"context"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/larder-registry/larder/upstream/auth"
	"github.com/larder-registry/larder/upstream/ecr"
	"github.com/larder-registry/larder/upstream/link"
	"github.com/larder-registry/larder/upstream/pace"
	"github.com/larder-registry/larder/upstream/reply"
)

// Registry is one upstream, with its replicas. It is safe for concurrent use. No
// method outlives its context.
//
// Errors are fs.ErrNotExist if the upstream has no such repository, manifest or
// blob, and fs.ErrPermission if it refuses; [reply.Error] is its answer. While the
// upstream is offline, all methods return an offline.Error at once.
type Registry struct {
	members group
	imports *ecr.PullThrough
	slots   *slots
	link    *link.Link // may be nil
}

// Manifest returns a manifest by tag or digest. With head it asks for the
// descriptor only, and returns no bytes unless it needed them for that. The digest
// of a tag is that of the bytes, or for a HEAD that of the header.
func (r *Registry) Manifest(ctx context.Context, repository, reference string, head bool) (ocispec.Descriptor, []byte, error) {
	if err := r.checkOnline(); err != nil {
		return ocispec.Descriptor{}, nil, err
	}
	timeout := r.members.primary().timeout
	req := manifestRequest{repository: repository, reference: reference, head: head}
	imported := r.imports.Fills(repository)
	if imported {
		timeout = max(ecr.ImportTimeout, timeout)
		req.timeout = timeout
	}
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, reply.ErrTimeout)
	defer cancel()
	ask := func(ctx context.Context, reference string, head bool) (ocispec.Descriptor, []byte, error) {
		req := req
		req.reference, req.head = reference, head
		got, err := r.asked(ctx).manifest(ctx, req)
		return got.desc, got.raw, err
	}
	if imported {
		return r.imports.Manifest(ctx, repository, reference, head, ask)
	}
	return ask(ctx, reference, head)
}

// checkOnline returns an error while the upstream is offline. Requests are checked once
// more when they are sent; here nothing is waited for.
func (r *Registry) checkOnline() error { return r.members.primary().gate.Check() }

// asked returns the members that a request may go to: a client's own login is for the registry
// that the client has named.
func (r *Registry) asked(ctx context.Context) group {
	if _, ofClient := auth.Of(ctx); ofClient {
		return r.members[:1]
	}
	return r.members
}

// HasLogin reports whether the node has a login of its own for the registry, by the configuration
// or by the host's name.
func (r *Registry) HasLogin() bool {
	primary := r.members.primary()
	return primary.ecr != nil || !primary.configured.challenged.Anonymous(context.Background())
}

// Login returns nil if the registry accepts the login of ctx (see [auth.As]) as one to pull from
// a repository with. Most registries say of the repository itself only that the login is known.
// The error is fs.ErrPermission if it refuses the login, and fs.ErrNotExist if it wants none before it
// is asked for something of a repository.
func (r *Registry) Login(ctx context.Context, repository string) error {
	if err := r.checkOnline(); err != nil {
		return err
	}
	primary := r.members.primary()
	ctx, cancel := context.WithTimeoutCause(ctx, primary.timeout, reply.ErrTimeout)
	defer cancel()
	resp, err := primary.ask(ctx, request{path: "/", scope: repository})
	if err != nil {
		return err
	}
	switch {
	case resp.StatusCode == http.StatusBadRequest: // of ECR, for what it cannot read
		return fmt.Errorf("log in to %s: %w: %w", primary.host, fs.ErrPermission, reply.Read(resp))
	case resp.StatusCode > http.StatusBadRequest:
		return fmt.Errorf("log in to %s: %w", primary.host, reply.Read(resp))
	}
	resp.Body.Close()
	if resp.Request.Header.Get("Authorization") == "" {
		return fmt.Errorf("log in to %s, which takes requests without a login: %w", primary.host, fs.ErrNotExist)
	}
	return nil
}

// List returns a page of a listing (tags/list, referrers/<digest>) as the upstream
// sends it.
func (r *Registry) List(ctx context.Context, repository, resource string, query url.Values) (http.Header, []byte, error) {
	if err := r.checkOnline(); err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, r.members.primary().timeout, reply.ErrTimeout)
	defer cancel()
	return r.members.primary().documents.fetch(ctx, request{
		maxBytes:   maxList,
		repository: repository,
		path:       resource,
		query:      query,
		accept:     "application/json, " + ocispec.MediaTypeImageIndex,
	})
}

// BlobSize returns the size of a blob that the repository has, or -1 if the upstream
// does not tell.
func (r *Registry) BlobSize(ctx context.Context, repository string, dgst digest.Digest) (int64, error) {
	if err := r.checkOnline(); err != nil {
		return 0, err
	}
	return r.asked(ctx).blobSize(ctx, repository, dgst)
}

// OpenBlob opens a range of a blob. An upstream that ignores ranges sends the whole
// blob instead. The body is a [link.Body] if the client has a link. In the background (see
// [pace.BackgroundUntil]) the error is a [link.ClosedError] outside of the link's hours.
func (r *Registry) OpenBlob(ctx context.Context, repository string, dgst digest.Digest, part Range) (Content, error) {
	if err := r.checkOnline(); err != nil {
		return Content{}, err
	}
	if _, background := pace.BackgroundOf(ctx); background {
		if err := r.link.Postponed(); err != nil {
			return Content{}, err
		}
	}
	release, err := r.slots.acquire(ctx, part.Spare)
	if err != nil {
		return Content{}, err
	}
	content, err := r.asked(ctx).openBlob(ctx, repository, dgst, part)
	if err != nil {
		release()
		return Content{}, err
	}
	content.Body = r.link.Body(ctx, &body{content.Body, release})
	return content, nil
}

// Touch has ECR record that a manifest is in use: it fetches the manifest from this
// registry and none of its replicas. ECR does not document which requests count as a
// pull for lifecycle policies. The GET of a manifest is what every client's pull has
// in common; a HEAD may be a mere look. The error is fs.ErrNotExist also if the
// registry is not asked with tokens of ECR's API. Requests of clients go first.
func (r *Registry) Touch(ctx context.Context, repository string, dgst digest.Digest) error {
	primary := r.members.primary()
	if primary.ecr == nil {
		return fmt.Errorf("touch an image at %s, which is not ECR: %w", primary.host, fs.ErrNotExist)
	}
	if err := r.checkOnline(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(pace.Background(ctx), primary.timeout, reply.ErrTimeout)
	defer cancel()
	_, err := primary.documents.manifest(ctx, manifestRequest{repository: repository, reference: dgst.String()})
	return err
}

// ECR returns the registry as ECR's API knows it, or nil if it is not asked with
// tokens of that API.
func (r *Registry) ECR() *ecr.Registry { return r.members.primary().ecr }

// RateLimit returns the latest statement of the upstream about its limit on pulls,
// if it made one.
func (r *Registry) RateLimit() (pace.RateLimit, bool) {
	limit := r.members.primary().rateLimit.Load()
	if limit == nil {
		return pace.RateLimit{}, false
	}
	return *limit, true
}

// Diagnosis returns the steps of "larder doctor" for the registry.
func (r *Registry) Diagnosis() Diagnosis { return Diagnosis{r.members.primary().site} }
