package upstream

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/upstream/pace"
	"github.com/larder-registry/larder/upstream/reply"
)

// Blob opens n bytes of a blob at off, and tells the size of the whole, or -1
// where the upstream does not. An upstream that ignores ranges sends the whole
// blob from offset 0 instead; an answer to all of it from offset 0 is not
// whole in that sense. The caller closes the body, and bounds how long it
// waits for its bytes.
//
// With n = 0 it only asks whether the repository has the blob: no body.
//
// With spare it fails rather than wait while the upstream is busy.
func (r *Registry) Blob(ctx context.Context, repository string, dgst digest.Digest, off, n int64, spare bool) (content io.ReadCloser, size int64, whole bool, err error) {
	if n == 0 {
		got, err := r.anyBlob(ctx, spare, func(ctx context.Context, at *Registry) (blob, error) {
			size, err := at.hasBlob(ctx, repository, dgst)
			at.outcome.note(ctx, err)
			return blob{size: size}, err
		})
		return nil, got.size, false, err
	}
	release, err := r.acquire(ctx, spare)
	if err != nil {
		return nil, 0, false, err
	}
	got, err := r.anyBlob(ctx, spare, func(ctx context.Context, at *Registry) (got blob, err error) {
		defer func() {
			if !spare || err == nil { // what a spare one could not have is no trouble
				at.outcome.note(ctx, err)
			}
		}()
		resp, err := at.openBlob(ctx, request{
			repository: repository,
			path:       "blobs/" + dgst.String(),
			byteRange:  fmt.Sprintf("bytes=%d-%d", off, off+n-1),
			priority:   pace.Blobs,
			spare:      spare,
		})
		if err != nil {
			return blob{}, err
		}
		size, whole, err := span(resp, off)
		return blob{resp.Body, size, whole}, err
	})
	if err != nil {
		release()
		return nil, 0, false, err
	}
	return &body{got.body, release}, got.size, got.whole, nil
}

// blob is an answer to the question for one.
type blob struct {
	body  io.ReadCloser // nil where only its existence was asked for
	size  int64
	whole bool
}

// anyBlob asks a question about a blob of the registry, or of whatever replica
// can answer it.
func (r *Registry) anyBlob(ctx context.Context, spare bool, ask func(context.Context, *Registry) (blob, error)) (blob, error) {
	if len(r.replicas) == 0 {
		return ask(ctx, r)
	}
	got, done, err := withReplicas(ctx, r, spare, ask)
	switch {
	case err != nil:
		return blob{}, err
	case got.body == nil:
		done()
	default:
		got.body = &body{got.body, done}
	}
	return got, nil
}

// acquire takes a place among the bodies that this upstream sends at once.
func (r *Registry) acquire(ctx context.Context, spare bool) (release func(), err error) {
	if !spare {
		if err := r.slots.Acquire(ctx, 1); err != nil {
			return nil, fmt.Errorf("wait for a connection to %s: %w", r.host, context.Cause(ctx))
		}
		return sync.OnceFunc(func() { r.slots.Release(1) }), nil
	}
	if !r.spare.TryAcquire(1) {
		return nil, fmt.Errorf("%s has no spare connection: %d are in use", r.host, spareSlots)
	}
	return sync.OnceFunc(func() { r.spare.Release(1) }), nil
}

// hasBlob asks the registry, not the storage behind it: a redirect is a yes.
// ECR Public answers no HEAD on blobs, so it is a GET for one byte.
func (r *Registry) hasBlob(ctx context.Context, repository string, dgst digest.Digest) (int64, error) {
	resp, err := r.ask(ctx, request{
		repository: repository,
		path:       "blobs/" + dgst.String(),
		byteRange:  "bytes=0-0",
		priority:   pace.Blobs,
	})
	if err != nil {
		return 0, err
	}
	if redirected(resp) {
		resp.Body.Close()
		return -1, nil
	}
	size, _, err := span(resp, 0)
	if err == nil {
		resp.Body.Close()
	}
	return size, err
}

// openBlob goes straight to the storage while the place that the registry gave
// for the blob is good, and asks the registry anew when it is not.
func (r *Registry) openBlob(ctx context.Context, req request) (*http.Response, error) {
	key := req.repository + "/" + req.path
	if to, ok := r.locations.get(key); ok {
		resp, err := r.fetch(ctx, http.MethodGet, to, req)
		if err != nil || !expired(resp) {
			return resp, err
		}
		resp.Body.Close()
		r.locations.drop(key, to)
	}
	resp, err := r.follow(ctx, req)
	if err == nil && resp.StatusCode < http.StatusBadRequest && !r.own(resp.Request.URL) {
		r.locations.put(key, resp.Request.URL)
	}
	return resp, err
}

// expired reports an answer with which storage refuses a URL that it accepted
// before: S3 says 403 to one that ran out, others say 400, 401 or 410.
func expired(resp *http.Response) bool {
	switch resp.StatusCode {
	case http.StatusBadRequest, http.StatusUnauthorized, http.StatusForbidden,
		http.StatusNotFound, http.StatusGone:
		return true
	}
	return false
}

// span reads from the status and headers what a body holds. It closes the body
// of an answer that is none.
func span(resp *http.Response, off int64) (size int64, whole bool, err error) {
	switch resp.StatusCode {
	case http.StatusOK:
		return resp.ContentLength, true, nil
	case http.StatusPartialContent:
		first, size, ok := parseContentRange(resp.Header.Get("Content-Range"))
		if !ok || first != off {
			resp.Body.Close()
			return 0, false, fmt.Errorf("%s answered for %q when asked for offset %d",
				resp.Request.URL.Host, resp.Header.Get("Content-Range"), off)
		}
		return size, false, nil
	case http.StatusRequestedRangeNotSatisfiable:
		if off == 0 && resp.Header.Get("Content-Range") == "bytes */0" {
			resp.Body.Close()
			resp.Body = http.NoBody
			return 0, false, nil // an empty blob satisfies no range
		}
	}
	return 0, false, reply.Read(resp)
}

// parseContentRange reads "bytes 500-999/1234" (RFC 9110, 14.4). The size is -1
// in "bytes 500-999/*".
func parseContentRange(v string) (first, size int64, ok bool) {
	v, isBytes := strings.CutPrefix(v, "bytes ")
	span, total, hasTotal := strings.Cut(v, "/")
	from, to, hasTo := strings.Cut(span, "-")
	if !isBytes || !hasTotal || !hasTo {
		return 0, 0, false
	}
	first, err1 := strconv.ParseInt(from, 10, 64)
	last, err2 := strconv.ParseInt(to, 10, 64)
	if size = -1; total != "*" {
		var err error
		if size, err = strconv.ParseInt(total, 10, 64); err != nil || size <= last {
			return 0, 0, false
		}
	}
	ok = err1 == nil && err2 == nil && 0 <= first && first <= last
	return first, size, ok
}

// locations remembers where the registry redirected to for each blob, so that
// the parallel and later parts of a fetch do not ask it again. It is safe for
// concurrent use.
type locations struct {
	mu   sync.Mutex
	urls *lru.Cache[string, location]
}

type location struct {
	url   *url.URL
	until time.Time
}

const (
	// locationLife is how long a URL is used that does not tell its life. It is
	// asked for anew when it is refused earlier.
	locationLife = time.Minute
	// locationMargin is how long before the end of its life a URL is not used
	// any more, as a request on its way must still arrive.
	locationMargin = 30 * time.Second
)

func newLocations() *locations {
	urls, _ := lru.New[string, location](1024) // fails only for a size that is not positive
	return &locations{urls: urls}
}

func (l *locations) get(key string) (*url.URL, bool) {
	loc, ok := l.urls.Get(key)
	if !ok || time.Now().After(loc.until) {
		return nil, false
	}
	return loc.url, true
}

func (l *locations) put(key string, u *url.URL) {
	l.urls.Add(key, location{u, time.Now().Add(urlLife(u))})
}

// drop forgets a URL, unless another has come in its place meanwhile.
func (l *locations) drop(key string, u *url.URL) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if loc, ok := l.urls.Peek(key); ok && loc.url == u {
		l.urls.Remove(key)
	}
}

// urlLife is how long a URL may be used: what a presigned S3 URL says of itself
// (X-Amz-Expires, in seconds; AWS "Signature Version 4 query parameters").
func urlLife(u *url.URL) time.Duration {
	s, err := strconv.Atoi(u.Query().Get("X-Amz-Expires"))
	if err != nil || s <= 0 {
		return locationLife
	}
	life := time.Duration(s) * time.Second
	return max(life-locationMargin, life/2)
}
