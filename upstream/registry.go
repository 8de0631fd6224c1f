package upstream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/semaphore"

	"github.com/larder-registry/larder/upstream/auth"
	"github.com/larder-registry/larder/upstream/guard"
	"github.com/larder-registry/larder/upstream/pace"
	"github.com/larder-registry/larder/upstream/reply"
)

// Config describes one upstream.
type Config struct {
	// Host is the registry's name, as clients give it.
	Host string
	// Name is what metrics call it: one of few, such as the pattern that has
	// allowed the host. Empty means Host.
	Name string
	// Endpoint is where its /v2 is. Empty means https://<Host>.
	Endpoint string
	// Timeout bounds each answer up to its headers, and manifests and lists in
	// all. 0 means 20 s.
	Timeout time.Duration
	// Username and PasswordFile are credentials for basic and bearer
	// authentication. The file is read when they are needed, so that it may be
	// replaced.
	Username, PasswordFile string
	// DockerConfig is a file of the form of Docker's config.json, in which the
	// credentials for the endpoint's host are looked up instead; what is there for
	// a part of a registry alone is not used. It is read as PasswordFile is.
	DockerConfig string
	// ECR has what the host of an ECR registry does not tell.
	ECR ECRConfig
}

// Registry is one upstream. Its methods may be called from several goroutines
// at once; each lives no longer than its context.
type Registry struct {
	host      string
	endpoint  *url.URL
	timeout   time.Duration
	auth      authorizer
	transport *guard.Transport
	log       *slog.Logger
	calls     *caller // nil counts nothing
	locations *locations
	limit     atomic.Pointer[pace.RateLimit]

	limits   *pace.Limits  // of the places that the registry redirects to
	requests *pace.Limiter // of the registry itself
	// In its stead where pulls have a quota of their own, or nil.
	pulls, anonymousPulls *pace.Limiter

	replicas []*Registry   // that have the same content, or will
	breaker  *pace.Breaker // of those who could ask another of them
	imports  *importer
	outcome  outcome

	slots *semaphore.Weighted // one a blob body
	spare *semaphore.Weighted // one a blob body that only speeds a fill up
}

// blobSlots and spareSlots bound the blob bodies that one upstream sends at
// the same time. Spare ones are apart, so that a roll-out of many layers is
// not held up by the parallel fetch of a few.
const (
	blobSlots  = 64
	spareSlots = 16
)

// maxDocument bounds manifests and lists. 4 MiB is ECR's limit for manifests.
const maxDocument = 4 << 20

// mediaTypeDockerList is Docker's form of an index.
const mediaTypeDockerList = "application/vnd.docker.distribution.manifest.list.v2+json"

// acceptManifests names every type of manifest. Whoever leaves one out gets a
// converted manifest from ECR by tag, with another digest.
var acceptManifests = strings.Join([]string{
	ocispec.MediaTypeImageIndex,
	ocispec.MediaTypeImageManifest,
	mediaTypeDockerList,
	"application/vnd.docker.distribution.manifest.v2+json",
}, ", ")

func newRegistry(cfg Config, authorizer authorizer, trs *guard.Transports, limits *pace.Limits, endpoint *url.URL, log *slog.Logger) *Registry {
	if cfg.Timeout == 0 {
		cfg.Timeout = 20 * time.Second
	}
	r := &Registry{
		host:      cfg.Host,
		endpoint:  endpoint,
		timeout:   cfg.Timeout,
		auth:      authorizer,
		transport: trs.For(endpoint),
		log:       log.With("upstream", cfg.Host),
		locations: newLocations(),
		breaker:   pace.NewBreaker(),
		imports:   newImporter(cfg.ECR.PullThrough),
		slots:     semaphore.NewWeighted(blobSlots),
		spare:     semaphore.NewWeighted(spareSlots),
	}
	r.pace(limits)
	return r
}

// Manifest returns a manifest by tag or digest. With head it asks for the
// descriptor only, and returns no bytes unless it needed them to know it. The
// digest by tag is that of the bytes, or for a HEAD the one of the header.
func (r *Registry) Manifest(ctx context.Context, repository, reference string, head bool) (ocispec.Descriptor, []byte, error) {
	if r.imports.fills(repository) {
		return r.importedManifest(ctx, repository, reference, head)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, r.timeout, reply.ErrTimeout)
	defer cancel()
	return r.anyManifest(ctx, repository, reference, head)
}

// anyManifest asks for a manifest of the registry, or of whatever replica has
// it.
func (r *Registry) anyManifest(ctx context.Context, repository, reference string, head bool) (ocispec.Descriptor, []byte, error) {
	if len(r.replicas) > 0 {
		return r.replicatedManifest(ctx, repository, reference, head)
	}
	return r.manifest(ctx, repository, reference, head)
}

// manifest is Manifest at this very registry.
func (r *Registry) manifest(ctx context.Context, repository, reference string, head bool) (ocispec.Descriptor, []byte, error) {
	req := request{
		repository: repository,
		path:       "manifests/" + reference,
		accept:     acceptManifests,
	}
	if r.imports.fills(repository) {
		req.timeout = max(importTimeout, r.timeout)
	}
	if head {
		req.method = http.MethodHead
	}
	header, body, err := r.document(ctx, req)
	if head && err == nil && len(body) == 0 {
		if dgst, err := digest.Parse(header.Get("Docker-Content-Digest")); err == nil {
			return ocispec.Descriptor{MediaType: mediaType(header), Digest: dgst}, nil, nil
		}
		req.method = http.MethodGet
		header, body, err = r.document(ctx, req)
	}
	if err != nil {
		return ocispec.Descriptor{}, nil, err
	}
	algorithm := digest.SHA256
	if d, err := digest.Parse(reference); err == nil {
		algorithm = d.Algorithm()
	}
	return ocispec.Descriptor{
		MediaType: mediaType(header),
		Digest:    algorithm.FromBytes(body),
		Size:      int64(len(body)),
	}, body, nil
}

// List returns a page of a listing (tags/list, referrers/<digest>) as the
// upstream sends it.
func (r *Registry) List(ctx context.Context, repository, resource string, query url.Values) (http.Header, []byte, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, r.timeout, reply.ErrTimeout)
	defer cancel()
	return r.document(ctx, request{
		repository: repository,
		path:       resource,
		query:      query,
		accept:     "application/json, " + ocispec.MediaTypeImageIndex,
	})
}

// document fetches something small, and tries again after what may pass.
func (r *Registry) document(ctx context.Context, req request) (http.Header, []byte, error) {
	type document struct {
		header http.Header
		body   []byte
	}
	ask := func() (document, error) {
		resp, err := r.follow(ctx, req)
		if err != nil {
			return document{}, retryable(err)
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return document{}, retryable(reply.Read(resp))
		}
		body, err := io.ReadAll(io.LimitReader(resp.Body, maxDocument+1))
		if err != nil {
			return document{}, fmt.Errorf("read %s from %s: %w", req.path, r.host, err)
		}
		if len(body) > maxDocument {
			return document{}, backoff.Permanent(fmt.Errorf("read %s from %s: more than %d bytes", req.path, r.host, maxDocument))
		}
		return document{resp.Header, body}, nil
	}
	pauses := pace.NewBackoff(100*time.Millisecond, time.Second)
	pauses.RandomizationFactor = backoff.DefaultRandomizationFactor // requests that failed together do not come back together
	got, err := backoff.Retry(ctx, ask, backoff.WithMaxTries(3), backoff.WithBackOff(pauses))
	defer func() { r.outcome.note(ctx, err) }()
	var permanent *backoff.PermanentError
	if errors.As(err, &permanent) {
		err = permanent.Unwrap()
	}
	if err != nil && errors.Is(context.Cause(ctx), reply.ErrTimeout) && !reply.IsThrottled(err) {
		err = fmt.Errorf("%s from %s: %w", req.path, r.host, reply.ErrTimeout)
	}
	return got.header, got.body, err
}

// retryable marks the errors after which asking again is of no use.
func retryable(err error) error {
	var refusal *reply.Error
	var refused *guard.RefusedError
	var credentials *auth.Error
	switch {
	case errors.As(err, &refused), errors.As(err, &credentials), reply.IsThrottled(err): // [Registry.paced] has tried again
		return backoff.Permanent(err)
	case !errors.As(err, &refusal):
		return err
	case !refusal.Temporary() || refusal.Wait > time.Second:
		return backoff.Permanent(err)
	}
	return err
}

// mediaType is the Content-Type without its parameters.
func mediaType(h http.Header) string {
	t, _, _ := strings.Cut(h.Get("Content-Type"), ";")
	return strings.TrimSpace(t)
}

// IsECR tells whether the registry is asked with tokens of ECR's API. Its
// repositories may have lifecycle policies, and tags that cannot be moved.
func (r *Registry) IsECR() bool {
	_, ok := r.auth.(*ecrAuth)
	return ok
}
