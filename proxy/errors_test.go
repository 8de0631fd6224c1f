package proxy

// White-box: upstreams do not produce all of these errors.

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/distribution/distribution/v3/registry/api/errcode"

	"github.com/larder-registry/larder/proxy/origin"
)

// busy is the error of an upstream that throttles.
type busy struct{ after time.Duration }

func (busy) Error() string               { return "too many requests" }
func (busy) Throttled() bool             { return true }
func (b busy) RetryAfter() time.Duration { return b.after }

// known is the target of a request that has an upstream.
func known(k kind) target { return target{route: route{kind: k}, upstream: Source{}} }

func TestFailureOf(t *testing.T) {
	bare := known(kindManifest)
	bare.bare = true
	noRepository := fmt.Errorf("%w: %w", fs.ErrNotExist, errcode.ErrorCodeNameUnknown.WithMessage("no such repository"))
	noImage := fmt.Errorf("%w: %w", fs.ErrNotExist, errcode.ErrorCodeManifestUnknown.WithMessage("no such image"))
	missing := fmt.Errorf("asked: %w", fs.ErrNotExist)
	denied := fmt.Errorf("asked: %w", fs.ErrPermission)
	tests := []struct {
		name   string
		err    error
		target target
		status int
		code   errcode.ErrorCode
		retry  time.Duration
	}{
		{"no upstream", errcode.ErrorCodeNameUnknown.WithMessage("x"), target{}, 404, errcode.ErrorCodeNameUnknown, 0},
		{"another Host", fmt.Errorf("%w: x", origin.ErrHost), target{}, 421, errcode.ErrorCodeUnsupported, 0},
		{"another site's page", origin.ErrSite, target{}, 403, errcode.ErrorCodeDenied, 0},
		{"a write", errcode.ErrorCodeUnsupported.WithMessage("x"), target{}, 405, errcode.ErrorCodeUnsupported, 0},
		{"a bad digest", errcode.ErrorCodeDigestInvalid.WithMessage("x"), target{}, 400, errcode.ErrorCodeDigestInvalid, 0},
		{"a bad page", errcode.ErrorCodePaginationNumberInvalid.WithMessage("x"), known(kindTags), 400, errcode.ErrorCodePaginationNumberInvalid, 0},
		{"no manifest", missing, known(kindManifest), 404, errcode.ErrorCodeManifestUnknown, 0},
		{"no image", noImage, known(kindManifest), 404, errcode.ErrorCodeManifestUnknown, 0},
		{"no repository", noRepository, known(kindManifest), 404, errcode.ErrorCodeNameUnknown, 0},
		{"no list", missing, known(kindTags), 404, errcode.ErrorCodeNameUnknown, 0},
		{"no referrers", missing, known(kindReferrers), 404, errcode.ErrorCodeManifestUnknown, 0},
		{"no repository for referrers", noRepository, known(kindReferrers), 404, errcode.ErrorCodeNameUnknown, 0},
		{"no blob", missing, known(kindBlob), 404, errcode.ErrorCodeBlobUnknown, 0},
		{"a denied manifest", denied, known(kindManifest), 403, errcode.ErrorCodeDenied, 0},
		{"a denied bare manifest", denied, bare, 404, errcode.ErrorCodeNameUnknown, 0},
		{"a denied blob", denied, known(kindBlob), 404, errcode.ErrorCodeBlobUnknown, 0},
		{"a blob too late", errSlow, known(kindBlob), 404, errcode.ErrorCodeBlobUnknown, 0},
		{"a blob too late, as its upstream throttles", fmt.Errorf("%w: %w", errSlow, busy{}), known(kindBlob), 503, errcode.ErrorCodeUnavailable, defaultRetry},
		{"a manifest too late", errSlow, known(kindManifest), 503, errcode.ErrorCodeUnavailable, defaultRetry},
		{"throttled", fmt.Errorf("asked: %w", busy{}), known(kindManifest), 503, errcode.ErrorCodeUnavailable, defaultRetry},
		{"throttled for long", fmt.Errorf("asked: %w", busy{time.Minute}), known(kindBlob), 503, errcode.ErrorCodeUnavailable, time.Minute},
		{"stopped", context.Canceled, known(kindManifest), 503, errcode.ErrorCodeUnavailable, defaultRetry},
		{"anything else", errors.New("odd"), known(kindTags), 503, errcode.ErrorCodeUnavailable, defaultRetry},
		// The status of an upstream's own code is not passed on.
		{"an upstream's 401", errcode.ErrorCodeUnauthorized.WithMessage("x"), known(kindManifest), 503, errcode.ErrorCodeUnavailable, defaultRetry},
		{"an upstream's 429", errcode.ErrorCodeTooManyRequests.WithMessage("x"), known(kindManifest), 503, errcode.ErrorCodeUnavailable, defaultRetry},
	}
	for _, test := range tests {
		got := failureOf(test.err, test.target)
		if got.status != test.status || got.code != test.code || got.retryAfter != test.retry || got.text == "" {
			t.Errorf("%s: %d %v, retry after %v, %q; want %d %v, %v",
				test.name, got.status, got.code, got.retryAfter, got.text, test.status, test.code, test.retry)
		}
		if got.status == http.StatusUnauthorized || got.status == http.StatusTooManyRequests {
			t.Errorf("%s: %d", test.name, got.status)
		}
	}
}

func TestNoLocalPathLeavesThisMachine(t *testing.T) {
	const dir = "/var/lib/larder"
	opened := &fs.PathError{Op: "open", Path: dir + "/blobs/sha256/ab/abc", Err: syscall.EACCES}
	renamed := &os.LinkError{Op: "rename", Old: dir + "/partial/x", New: dir + "/blobs/x", Err: syscall.ENOTDIR}
	for name, err := range map[string]error{
		"open":    opened,
		"wrapped": fmt.Errorf("open blob: %w", opened),
		"joined":  errors.Join(errors.New("a"), fmt.Errorf("b: %w", errors.Join(opened, renamed))),
		"nested":  fmt.Errorf("%w, and %w", &fs.PathError{Op: "write", Path: dir, Err: renamed}, opened),
	} {
		for _, kind := range []kind{kindManifest, kindBlob, kindTags, kindReferrers} {
			text := failureOf(err, known(kind)).text
			if strings.Contains(text, "larder") {
				t.Errorf("%s: a client is told %q", name, text)
			}
			if !strings.Contains(text, "permission denied") && !strings.Contains(text, "not a directory") {
				t.Errorf("%s: %q does not say why", name, text)
			}
		}
	}
	const same = `Get "https://registry.test/v2/": no such host`
	if got := failureOf(errors.New(same), known(kindBlob)).text; got != same {
		t.Errorf("a URL was changed: %q", got)
	}
}
