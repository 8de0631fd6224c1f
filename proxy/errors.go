package proxy

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/distribution/distribution/v3/registry/api/errcode"

	"github.com/larder-registry/larder/cache"
	"github.com/larder-registry/larder/proxy/access"
	"github.com/larder-registry/larder/proxy/origin"
	"github.com/larder-registry/larder/proxy/password"
	"github.com/larder-registry/larder/proxy/policy"
)

// Only this file turns errors into responses. Each is chosen so that the client goes to
// the upstream at once. PROTOCOL.md has the table, and which client needs which row.

// The errors of requests that no upstream is asked about. They carry their code, and
// with it their status.
var (
	errReadOnly    = errcode.ErrorCodeUnsupported.WithMessage("this is a pull-through cache: push to the upstream itself")
	errNoSuchPath  = errcode.ErrorCodeNameUnknown.WithMessage("there is nothing at this path")
	errNamespace   = errcode.ErrorCodeNameUnknown.WithMessage("the parameter ns is not a registry's host")
	errName        = errcode.ErrorCodeNameInvalid.WithMessage("the path does not have a valid repository name")
	errNameTooLong = errcode.ErrorCodeNameInvalid.WithMessage("the repository's name is longer than 255 characters")
	errTag         = errcode.ErrorCodeTagInvalid.WithMessage("the path does not have a valid tag or digest")
	errDigest      = errcode.ErrorCodeDigestInvalid.WithMessage("the path does not have a valid sha256 or sha512 digest")
	errQuery       = errcode.ErrorCodeNameInvalid.WithMessage("the query is longer than 4096 bytes")
	errRanges      = errcode.ErrorCodeRangeInvalid.WithMessage("the header Range has more than 1024 ranges")
	errPageSize    = errcode.ErrorCodePaginationNumberInvalid.WithMessage("n is not a number of tags")
)

// errSlow is why a request stops waiting for its upstream.
var errSlow = errors.New("the upstream did not answer in time")

// malformed is the error of a request that has no meaning.
type malformed struct{ error }

// challengeError is the answer to a request without a good token.
type challengeError struct{ access.Challenge }

func (e *challengeError) Error() string {
	if e.Challenge.Error == "" {
		return "authentication required: ask for a token first"
	}
	return "the token is not good here (" + e.Challenge.Error + "): ask for another one"
}

// loginError is the answer to a request for a token whose credential the upstream refuses.
type loginError struct{ *clientRefused }

// Unwrap is for errors.As.
func (e loginError) Unwrap() error { return e.clientRefused }

// failure is the response to a request that failed.
type failure struct {
	status     int
	code       errcode.ErrorCode
	text       string
	retryAfter time.Duration // not sent if 0
}

// defaultRetry is the least Retry-After: some upstreams that throttle do not say when
// they take the next request. ECR does not.
const defaultRetry = 5 * time.Second

// failureOf returns the response for an error.
//
// It is a 401 only where the client's own rights decide, or where clients need a password: for one
// containerd's CRI plug-in sends the image pull secret. It is never a 429, for which containerd would retry five times here.
func failureOf(err error, t target) failure {
	text := publicText(err)
	var challenged *challengeError
	if errors.As(err, &challenged) || errors.As(err, new(loginError)) {
		return failure{http.StatusUnauthorized, errcode.ErrorCodeUnauthorized, text, 0}
	}
	if errors.Is(err, password.ErrUnauthorized) {
		return failure{http.StatusUnauthorized, errcode.ErrorCodeUnauthorized, text, 0}
	}
	if errors.As(err, new(malformed)) || errors.Is(err, password.ErrMalformed) {
		return failure{http.StatusBadRequest, errcode.ErrorCodeUnsupported, text, 0}
	}
	if errors.As(err, new(notAudited)) {
		return failure{http.StatusServiceUnavailable, errcode.ErrorCodeUnavailable, text, defaultRetry}
	}
	var unfit *policyError
	if t.kind == kindManifest && errors.As(err, &unfit) {
		if unfit.Result == policy.Refused { // classic Docker, too, must not go on to the registry
			return failure{http.StatusForbidden, errcode.ErrorCodeDenied, text, 0}
		}
		return failure{http.StatusServiceUnavailable, errcode.ErrorCodeUnavailable, text, policy.RetryAfter}
	}
	if t.kind == kindToken && !errors.As(err, new(errcode.Error)) {
		return failure{http.StatusServiceUnavailable, errcode.ErrorCodeUnavailable, text, defaultRetry}
	}
	var throttled interface {
		Throttled() bool
		RetryAfter() time.Duration
	}
	if errors.As(err, &throttled) && throttled.Throttled() {
		return failure{http.StatusServiceUnavailable, errcode.ErrorCodeUnavailable, text, max(throttled.RetryAfter(), defaultRetry)}
	}
	if t.kind == kindBlob && t.source.Upstream != nil {
		return failure{http.StatusNotFound, errcode.ErrorCodeBlobUnknown, text, 0}
	}
	if cache.IsPostponed(err) {
		return failure{http.StatusNotFound, notFoundCode(t, errcode.Error{}), text, 0}
	}
	var detail errcode.Error
	hasDetail := errors.As(err, &detail)
	switch {
	case errors.Is(err, origin.ErrHost):
		return failure{http.StatusMisdirectedRequest, errcode.ErrorCodeUnsupported, text, 0}
	case errors.Is(err, origin.ErrSite):
		return failure{http.StatusForbidden, errcode.ErrorCodeDenied, text, 0}
	case errors.Is(err, fs.ErrNotExist):
		return failure{http.StatusNotFound, notFoundCode(t, detail), text, 0}
	case errors.Is(err, fs.ErrPermission) && t.bare:
		// Classic Docker does not fall back on DENIED.
		return failure{http.StatusNotFound, errcode.ErrorCodeNameUnknown, text, 0}
	case errors.Is(err, fs.ErrPermission):
		return failure{http.StatusForbidden, errcode.ErrorCodeDenied, text, 0}
	case hasDetail && (t.source.Upstream == nil || detail.Code == errPageSize.Code):
		return failure{detail.Code.Descriptor().HTTPStatusCode, detail.Code, shorten(detail.Message), 0}
	}
	return failure{http.StatusServiceUnavailable, errcode.ErrorCodeUnavailable, text, defaultRetry}
}

// localFile is what a client is told in place of the path of a file of this machine.
const localFile = "(a local file)"

// localPath finds absolute paths in the text of an error: libraries such as AWS's SDK format
// an error about a file without wrapping it. A path after a method is that of an upstream's
// URL, as is one behind a host.
var localPath = regexp.MustCompile(`(GET|HEAD|POST)?(^|file://|[\s"'` + "`" + `(\[{<=,:;])(/[^\s/"'` + "`" + `()\[\]{}<>,;][^\s"'` + "`" + `()\[\]{}<>,;]*[^\s"'` + "`" + `()\[\]{}<>,;:.])`)

// publicText is the text of an error without the paths of local files in it, and of a bounded
// length: a client may be on another machine. The log has the paths.
func publicText(err error) string {
	text := err.Error()
	paths := localPaths(err, nil)
	slices.SortFunc(paths, func(a, b string) int { return cmp.Compare(len(b), len(a)) }) // a file before its folder
	for _, path := range paths {
		text = strings.ReplaceAll(text, path, localFile)
	}
	return shorten(text)
}

// shorten bounds a text for a client, and hides the paths of local files in it.
func shorten(text string) string { return cut(hidePaths(cut(text, maxReason)), maxReason) }

// hidePaths replaces the absolute paths in a text, but for those of the distribution API.
func hidePaths(text string) string {
	return localPath.ReplaceAllStringFunc(text, func(found string) string {
		m := localPath.FindStringSubmatch(found)
		method, before, path := m[1], m[2], m[3]
		if method != "" || strings.HasPrefix(path, "/v2/") {
			return found
		}
		return before + localFile
	})
}

// localPaths adds the absolute paths that the errors within err are about.
func localPaths(err error, paths []string) []string {
	var found []string
	switch e := err.(type) { //nolint:errorlint // it walks the tree itself
	case *fs.PathError:
		found = []string{e.Path}
	case *os.LinkError:
		found = []string{e.Old, e.New}
	}
	for _, path := range found {
		if len(path) > 1 && filepath.IsAbs(path) {
			paths = append(paths, path)
		}
	}
	switch e := err.(type) { //nolint:errorlint // it walks the tree itself
	case interface{ Unwrap() error }:
		paths = localPaths(e.Unwrap(), paths)
	case interface{ Unwrap() []error }:
		for _, inner := range e.Unwrap() {
			paths = localPaths(inner, paths)
		}
	}
	return paths
}

// notFoundCode returns the code for what the upstream does not have. The upstream's own
// code is used only where clients tell it from others.
func notFoundCode(t target, detail errcode.Error) errcode.ErrorCode {
	if detail.Code == errcode.ErrorCodeNameUnknown || t.kind == kindTags {
		return errcode.ErrorCodeNameUnknown
	}
	// For referrers too: to ORAS, NAME_UNKNOWN means that there is no repository. Any
	// other 404 means that there is no referrers API; then it asks by tag.
	return errcode.ErrorCodeManifestUnknown
}

// isRefusal reports whether err is an upstream's own answer, which no stale answer
// replaces.
func isRefusal(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission)
}

// hasLeft reports whether err is that the client left before the response began.
func hasLeft(r *http.Request, err error) bool {
	return r.Context().Err() != nil && errors.Is(err, context.Canceled)
}

// write sends the response in the specification's form (distribution-spec, "Error
// Codes").
func (f failure) write(w http.ResponseWriter, r *http.Request) {
	type item struct {
		Code    string `json:"code"`
		Message string `json:"message"`
	}
	body, err := json.Marshal(struct {
		Errors []item `json:"errors"`
	}{[]item{{f.code.String(), f.text}}})
	if err != nil {
		body = nil // strings always marshal
	}
	h := w.Header()
	for _, name := range []string{"Etag", "Accept-Ranges", "Docker-Content-Digest", "Content-Range"} {
		h.Del(name)
	}
	h.Set("Content-Type", "application/json")
	setLength(h, len(body))
	if f.status == http.StatusMethodNotAllowed {
		h.Set("Allow", "GET, HEAD") // RFC 9110, 15.5.6
	}
	if f.status == http.StatusUnauthorized && h.Get("WWW-Authenticate") == "" {
		h.Set("WWW-Authenticate", password.Challenge) // access has its own
	}
	if f.retryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(int((f.retryAfter+time.Second-1)/time.Second)))
	}
	w.WriteHeader(f.status)
	if r.Method != http.MethodHead {
		_, _ = w.Write(body) // an error means that the client has left
	}
}
