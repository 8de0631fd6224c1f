package upstream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/upstream/pace"
	"github.com/larder-registry/larder/upstream/redact"
	"github.com/larder-registry/larder/upstream/reply"
)

// Range is a part of a blob.
type Range struct {
	Off, Len int64 // in bytes; Len is above 0
	// Spare says that the part only speeds a fetch up. It fails instead of waiting
	// while the upstream is busy.
	Spare bool
	// Size is that of the whole blob in bytes if it is known, else 0. An upstream is believed
	// whatever it says.
	Size int64
}

// Content is an open part of a blob. The caller closes the body, and bounds how
// long it waits for its bytes.
type Content struct {
	Body io.ReadCloser
	// Whole says that the upstream ignored the range, and that the body is the whole
	// blob from offset 0.
	Whole bool
	// Size is that of the whole blob in bytes, or -1 if the upstream does not tell.
	Size int64
}

// blobs opens the blobs of one site. It is safe for concurrent use.
type blobs struct {
	site      *site
	outcome   *outcome
	locations *locations
}

// size asks the registry, not the storage behind it, whether it has a blob: a
// redirect means that it does. It sends a GET for one byte, as ECR Public answers no
// HEAD for blobs.
func (b blobs) size(ctx context.Context, repository string, dgst digest.Digest) (size int64, err error) {
	defer func() { b.outcome.note(ctx, err) }()
	resp, err := b.site.ask(ctx, blobRequest(repository, dgst, Range{Len: 1}))
	if err != nil {
		return 0, err
	}
	if reply.IsRedirect(resp) {
		resp.Body.Close()
		return -1, nil
	}
	content, err := contentOf(resp, 0)
	if err != nil {
		return 0, err
	}
	content.Body.Close()
	return content.Size, nil
}

// open opens a range of a blob.
func (b blobs) open(ctx context.Context, repository string, dgst digest.Digest, part Range) (content Content, err error) {
	defer func() {
		if !part.Spare || err == nil { // the failure of a spare request is no trouble
			b.outcome.note(ctx, err)
		}
	}()
	resp, err := b.connect(ctx, blobRequest(repository, dgst, part))
	if err != nil {
		return Content{}, err
	}
	return contentOf(resp, part.Off)
}

// connect goes straight to the storage while the registry's URL for the blob is
// good, and otherwise asks the registry for a new one.
func (b blobs) connect(ctx context.Context, req request) (*http.Response, error) {
	key := req.repository + "/" + req.path
	if to, ok := b.locations.get(key); ok {
		resp, err := b.site.fetch(ctx, http.MethodGet, to, req)
		switch {
		case err == nil && !expired(resp):
			return resp, nil
		case err == nil:
			resp.Body.Close()
		case ctx.Err() != nil || !isDial(err):
			return nil, err
		}
		b.locations.drop(key, to) // the registry may name another host by now
	}
	resp, err := b.site.follow(ctx, req)
	if err == nil && resp.StatusCode < http.StatusBadRequest && !expired(resp) && !b.site.own(resp.Request.URL) {
		b.locations.put(key, resp.Request.URL)
	}
	return resp, err
}

// isDial reports whether no connection could be made.
func isDial(err error) bool {
	failed, ok := errors.AsType[*net.OpError](err)
	return ok && failed.Op == "dial"
}

func blobRequest(repository string, dgst digest.Digest, part Range) request {
	return request{
		repository: repository,
		path:       "blobs/" + dgst.String(),
		byteRange:  fmt.Sprintf("bytes=%d-%d", part.Off, part.Off+part.Len-1),
		priority:   pace.Blobs,
		spare:      part.Spare,
	}
}

// expired reports an answer with which storage refuses a URL that it accepted
// before: S3 answers 403 to an expired one, others 400, 401, 410 or a login page.
func expired(resp *http.Response) bool {
	switch resp.StatusCode {
	case http.StatusOK:
		return notWhole(resp) != ""
	case http.StatusBadRequest, http.StatusUnauthorized, http.StatusForbidden,
		http.StatusNotFound, http.StatusGone:
		return true
	}
	return false
}

// contentOf returns the part of a blob that an answer has. If it has none, the error
// is a [reply.Error] or a [reply.ContentError], and the answer's body is closed.
func contentOf(resp *http.Response, off int64) (Content, error) {
	switch resp.StatusCode {
	case http.StatusOK:
		if reason := notWhole(resp); reason != "" {
			resp.Body.Close()
			return Content{}, &reply.ContentError{Host: resp.Request.URL.Host, Reason: reason}
		}
		return Content{resp.Body, true, resp.ContentLength}, nil
	case http.StatusPartialContent:
		first, size, ok := parseContentRange(resp.Header.Get("Content-Range"))
		if !ok || first != off {
			resp.Body.Close()
			return Content{}, fmt.Errorf("%s answered for %q when asked for offset %d",
				resp.Request.URL.Host, redact.Of(resp.Request).Text(resp.Header.Get("Content-Range")), off)
		}
		return Content{resp.Body, false, size}, nil
	case http.StatusRequestedRangeNotSatisfiable:
		size, told := unsatisfied(resp.Header.Get("Content-Range"))
		switch {
		case told && size == 0 && off == 0:
			resp.Body.Close()
			return Content{http.NoBody, false, 0}, nil // an empty blob satisfies no range
		case told && size <= off:
			resp.Body.Close()
			return Content{}, &reply.ContentError{Host: resp.Request.URL.Host, Reason: fmt.Sprintf("has a blob of %d bytes, and was asked for offset %d", size, off)}
		}
	}
	return Content{}, reply.Read(resp)
}

// notWhole returns why an answer of 200 cannot be a whole blob, or nothing. Registries
// and storage send blobs as application/octet-stream or with the type of a layer; a
// web page is that of a login, of a captive portal or of an error.
func notWhole(resp *http.Response) string {
	h := resp.Header
	switch kind := strings.ToLower(mediaType(h)); {
	case kind == "text/html", kind == "application/xhtml+xml":
		return "sends a web page (" + kind + ") instead of the blob"
	case h.Get("Content-Range") != "":
		sent := redact.Of(resp.Request).Text(h.Get("Content-Range"))
		return fmt.Sprintf("sends a part of the blob (Content-Range %.100q) as the whole", sent)
	}
	return ""
}

// unsatisfied reads the size in "bytes */1234", with which a server says that it has no such
// range.
func unsatisfied(v string) (size int64, ok bool) {
	v, ok = strings.CutPrefix(v, "bytes */")
	size, err := strconv.ParseInt(v, 10, 64)
	return size, ok && err == nil && size >= 0
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
