package proxy

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"net/http"
	"strconv"
	"time"

	"github.com/distribution/distribution/v3/registry/api/errcode"
)

// This file alone turns errors into answers. An answer has one purpose: the
// client goes to the upstream at once instead. PROTOCOL.md has the table, and
// which client each row is for.

// answer is an error as the client will see it.
type answer struct {
	status int
	code   errcode.ErrorCode
	text   string
	retry  time.Duration // Retry-After, if not 0
}

// defaultRetry is the Retry-After of an upstream that throttles and does not
// say for how long. ECR does not.
const defaultRetry = 5 * time.Second

// describe picks the answer to a request that failed.
//
// There is never a 401, which would make containerd's CRI hand over the image
// pull secret, and never a 429, which makes it retry here five times.
func describe(err error, t target) answer {
	text := err.Error()
	var throttled interface {
		Throttled() bool
		RetryAfter() time.Duration
	}
	if errors.As(err, &throttled) && throttled.Throttled() {
		return answer{http.StatusServiceUnavailable, errcode.ErrorCodeUnavailable, text, max(throttled.RetryAfter(), defaultRetry)}
	}
	if t.kind == kindBlob && t.upstream != nil {
		return answer{http.StatusNotFound, errcode.ErrorCodeBlobUnknown, text, 0}
	}
	var detail errcode.Error
	hasDetail := errors.As(err, &detail)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return answer{http.StatusNotFound, missing(t, detail), text, 0}
	case errors.Is(err, fs.ErrPermission) && t.bare:
		// Classic Docker does not fall back on DENIED.
		return answer{http.StatusNotFound, errcode.ErrorCodeNameUnknown, text, 0}
	case errors.Is(err, fs.ErrPermission):
		return answer{http.StatusForbidden, errcode.ErrorCodeDenied, text, 0}
	case hasDetail && (t.upstream == nil || detail.Code == errcode.ErrorCodePaginationNumberInvalid):
		return answer{detail.Code.Descriptor().HTTPStatusCode, detail.Code, detail.Message, 0}
	}
	return answer{http.StatusServiceUnavailable, errcode.ErrorCodeUnavailable, text, defaultRetry}
}

// missing is the code for something that the upstream does not have: its own
// where it is one of those that clients tell apart.
func missing(t target, detail errcode.Error) errcode.ErrorCode {
	if detail.Code == errcode.ErrorCodeNameUnknown || t.kind == kindTags {
		return errcode.ErrorCodeNameUnknown
	}
	// For referrers too: ORAS takes NAME_UNKNOWN for "no such repository", and
	// any other 404 for "no referrers API", after which it asks by tag.
	return errcode.ErrorCodeManifestUnknown
}

// write sends an answer in the specification's form (distribution-spec, "Error
// Codes").
func (a answer) write(w http.ResponseWriter, r *http.Request) {
	type item struct {
		Code    string `json:"code"`
		Message string `json:"message"`
	}
	body, err := json.Marshal(struct {
		Errors []item `json:"errors"`
	}{[]item{{a.code.String(), a.text}}})
	if err != nil {
		body = nil // strings always marshal
	}
	h := w.Header()
	for _, name := range []string{"Etag", "Accept-Ranges", "Docker-Content-Digest", "Content-Range"} {
		h.Del(name)
	}
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	if a.status == http.StatusMethodNotAllowed {
		h.Set("Allow", "GET, HEAD") // RFC 9110, 15.5.6
	}
	if a.retry > 0 {
		h.Set("Retry-After", strconv.Itoa(int((a.retry+time.Second-1)/time.Second)))
	}
	w.WriteHeader(a.status)
	if r.Method != http.MethodHead {
		_, _ = w.Write(body) // a client that left is no error of ours
	}
}

// errSlow is why a request stops waiting for its upstream.
var errSlow = errors.New("the upstream did not answer in time")

// isGone reports a client that left before its answer began.
func isGone(r *http.Request, err error) bool {
	return r.Context().Err() != nil && errors.Is(err, context.Canceled)
}
