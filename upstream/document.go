package upstream

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/distribution/distribution/v3/manifest/manifestlist"
	"github.com/distribution/distribution/v3/manifest/schema2"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/larder-registry/larder/upstream/auth"
	"github.com/larder-registry/larder/upstream/guard"
	"github.com/larder-registry/larder/upstream/offline"
	"github.com/larder-registry/larder/upstream/pace"
	"github.com/larder-registry/larder/upstream/patience"
	"github.com/larder-registry/larder/upstream/reply"
)

// documents fetches manifests and lists of one site. It is safe for concurrent use.
type documents struct {
	site    *site
	outcome *outcome
}

const (
	// maxDocument bounds manifests, in bytes. 4 MiB is ECR's limit.
	maxDocument = 4 << 20
	// maxList bounds lists of tags and referrers, in bytes. Registries that ignore the size
	// of a page were seen to send 5.5 MB of tags.
	maxList = 32 << 20
	// maxTries bounds the attempts to fetch a document. firstRetry and longestRetry
	// are the pauses between them.
	maxTries     = 3
	firstRetry   = 100 * time.Millisecond
	longestRetry = time.Second
)

// acceptManifests names every type of manifest. By tag, ECR converts a manifest
// whose type is missing here, which gives it another digest.
var acceptManifests = strings.Join([]string{
	ocispec.MediaTypeImageIndex,
	ocispec.MediaTypeImageManifest,
	manifestlist.MediaTypeManifestList,
	schema2.MediaTypeManifest,
}, ", ")

// manifestRequest is a request for a manifest by tag or digest.
type manifestRequest struct {
	repository, reference string
	head                  bool          // the descriptor is enough
	timeout               time.Duration // of each answer; 0 means site.timeout
}

// manifest is a descriptor, and the bytes if they were fetched.
type manifest struct {
	desc ocispec.Descriptor
	raw  []byte
}

// manifest fetches a manifest. For a HEAD the digest is that of the header. If the HEAD
// does not decide, the manifest is fetched in whole: some registries answer HEAD with
// 405, 500 or 501, or redirect it to storage that signed only GET, and answer GET well.
func (d documents) manifest(ctx context.Context, m manifestRequest) (manifest, error) {
	req := request{repository: m.repository, path: "manifests/" + m.reference, accept: acceptManifests, timeout: m.timeout}
	if m.head {
		req.method = http.MethodHead
		header, body, err := d.fetch(ctx, req)
		claimed, parseErr := digest.Parse(header.Get("Docker-Content-Digest"))
		switch {
		case err != nil && d.decides(err):
			return manifest{}, err
		case err == nil && len(body) > 0: // site.ask has asked as GET
			return manifestOf(m.reference, header, body), nil
		case err == nil && parseErr == nil:
			return manifest{desc: ocispec.Descriptor{MediaType: mediaType(header), Digest: claimed}}, nil
		}
		req.method = http.MethodGet
	}
	header, body, err := d.fetch(ctx, req)
	if err != nil {
		return manifest{}, err
	}
	return manifestOf(m.reference, header, body), nil
}

// decides reports whether a GET could not do better than a HEAD that failed: the
// registry itself has no such manifest, it throttles, or there was no answer.
func (d documents) decides(err error) bool {
	var refusal *reply.Error
	switch {
	case !errors.As(err, &refusal), refusal.Throttled():
		return true
	case errors.Is(err, fs.ErrNotExist):
		return refusal.Host == d.site.endpoint.Host
	}
	return false
}

// manifestOf describes a manifest by its bytes. The algorithm of the digest is that of
// the reference. By tag it is that of the header, if the header tells the digest of
// these bytes: a registry that names a manifest by its sha512 knows no sha256 of it.
func manifestOf(reference string, header http.Header, body []byte) manifest {
	of := digest.FromBytes(body)
	if asked, err := digest.Parse(reference); err == nil {
		of = asked.Algorithm().FromBytes(body)
	} else if named := digest.Digest(header.Get("Docker-Content-Digest")); strings.HasPrefix(string(named), "sha512:") {
		if sha512 := digest.SHA512.FromBytes(body); sha512 == named {
			of = sha512
		}
	}
	return manifest{ocispec.Descriptor{MediaType: mediaType(header), Digest: of, Size: int64(len(body))}, body}
}

// fetch fetches a document, and tries again after a failure that may be temporary. A
// HEAD to which the registry answers with an error is not tried again: its GET is.
func (d documents) fetch(ctx context.Context, req request) (http.Header, []byte, error) {
	type document struct {
		header http.Header
		body   []byte
	}
	req.awaited = smallDocument // what is larger waits for its admission first
	pauses := pace.NewJitteredBackoff(firstRetry, longestRetry)
	got, err := backoff.Retry(ctx, func() (document, error) {
		header, body, err := d.fetchOnce(ctx, req)
		if err != nil && req.method == http.MethodHead && !d.decides(err) {
			err = backoff.Permanent(err)
		}
		return document{header, body}, err
	}, backoff.WithMaxTries(maxTries), backoff.WithBackOff(pauses))
	admitted := !errors.Is(err, errNotAdmitted)
	defer func() {
		if admitted { // else it says nothing about the upstream
			d.outcome.note(ctx, err)
		}
	}()
	var permanent *backoff.PermanentError
	if errors.As(err, &permanent) {
		err = permanent.Unwrap()
	}
	if err != nil && admitted && errors.Is(context.Cause(ctx), reply.ErrTimeout) && !reply.IsThrottled(err) {
		err = fmt.Errorf("%s from %s: %w", req.path, d.site.host, reply.ErrTimeout)
	}
	return got.header, got.body, err
}

// fetchOnce fetches a document. Any status but 200 is a [reply.Error].
func (d documents) fetchOnce(ctx context.Context, req request) (http.Header, []byte, error) {
	resp, err := d.site.follow(ctx, req)
	if err != nil {
		return nil, nil, retryable(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, nil, retryable(reply.Read(resp))
	}
	body, err := readDocument(ctx, resp, cmp.Or(req.maxBytes, maxDocument))
	d.site.link.Charge(ctx, int64(len(body)))
	if err != nil {
		err = fmt.Errorf("read %s from %s: %w", req.path, d.site.host, err)
		if errors.Is(err, errTooLarge) || errors.Is(err, errNotAdmitted) {
			err = backoff.Permanent(err)
		}
		return nil, nil, err
	}
	return resp.Header, body, nil
}

// errTooLarge is the error for a document that is larger than its request allows.
var errTooLarge = errors.New("it is too large")

// errNotAdmitted is the error for a document that may not be read into memory.
var errNotAdmitted = errors.New("there is no place for it")

// admitKey is the key of a context's [Admit].
type admitKey struct{}

// Admit waits until a document of a size, in bytes, may be read into memory. An error ends
// the request.
type Admit func(ctx context.Context, size int64) error

// WithAdmission returns a context under which admit is called before a manifest or list of
// more than 64 KiB is read. If the upstream does not tell the size, it is first 4 MiB, and
// that of the largest possible list if the list turns out to be larger. A request that is
// sent again calls it again. Each call replaces the one before.
func WithAdmission(ctx context.Context, admit func(ctx context.Context, size int64) error) context.Context {
	return context.WithValue(ctx, admitKey{}, Admit(admit))
}

// smallDocument is the size, in bytes, up to which documents are read without asking. Nearly
// all manifests are smaller.
const smallDocument = 64 << 10

// readDocument reads the body of an answer, which may have most bytes.
func readDocument(ctx context.Context, resp *http.Response, most int64) ([]byte, error) {
	if resp.Request.Method == http.MethodHead {
		return nil, nil
	}
	size := resp.ContentLength
	tooLarge := fmt.Errorf("%w: more than %d bytes", errTooLarge, most)
	if size > most {
		return nil, tooLarge
	}
	admit, ok := ctx.Value(admitKey{}).(Admit)
	if !ok {
		admit = func(context.Context, int64) error { return nil }
	}
	var body []byte
	steps := []int64{size}
	if size < 0 {
		var err error
		body, err = appendFrom(nil, io.LimitReader(resp.Body, smallDocument))
		if err != nil || len(body) < smallDocument {
			return body, err
		}
		steps = []int64{min(maxDocument, most), most}
	}
	for _, step := range steps {
		if step > smallDocument {
			if err := admit(ctx, step); err != nil {
				return nil, fmt.Errorf("%w: %w", errNotAdmitted, err)
			}
		}
		if size >= 0 {
			body = make([]byte, 0, size+1) // one for the end
		}
		var err error
		body, err = appendFrom(body, io.LimitReader(resp.Body, step+1-int64(len(body))))
		if err != nil || int64(len(body)) <= step {
			return body, err
		}
	}
	return nil, tooLarge
}

// appendFrom appends what r has. A buffer that is larger than that is not replaced.
func appendFrom(buf []byte, r io.Reader) ([]byte, error) {
	for {
		if len(buf) == cap(buf) {
			buf = slices.Grow(buf, max(len(buf), 512))
		}
		n, err := r.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		if errors.Is(err, io.EOF) {
			return buf, nil
		}
		if err != nil {
			return buf, err
		}
	}
}

// retryable marks the errors after which another attempt is of no use.
func retryable(err error) error {
	var refusal *reply.Error
	var refused *guard.RefusedError
	var credentials *auth.Error
	var silent *patience.SilentError
	switch {
	case errors.As(err, &refused), errors.As(err, &credentials), errors.As(err, &silent), offline.Is(err):
		return backoff.Permanent(err)
	case reply.IsThrottled(err): // throttle.do has tried again
		return backoff.Permanent(err)
	case !errors.As(err, &refusal):
		return err
	case !refusal.Temporary() || refusal.Wait > longestRetry:
		return backoff.Permanent(err)
	}
	return err
}

// mediaType returns the Content-Type without its parameters.
func mediaType(h http.Header) string {
	t, _, _ := strings.Cut(h.Get("Content-Type"), ";")
	return strings.TrimSpace(t)
}
