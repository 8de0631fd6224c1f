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
func known(k kind) target { return target{route: route{kind: k}, source: Source{Upstream: Source{}}} }

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

// AWS's SDK and others format the error of a file without wrapping it. The texts are theirs.
func TestNoLocalPathInTheTextOfAnErrorLeavesThisMachine(t *testing.T) {
	for _, text := range []string{
		"failed to retrieve jwt from provide source, unable to read file at /var/run/secret-7/token: open /var/run/secret-7/token: no such file or directory",
		"failed to load shared config file, /home/secret-7/.aws/config, open /home/secret-7/.aws/config: permission denied",
		"failed to get shared config profile, secret7 in [/root/secret-7/.aws/credentials]",
		"error in credential_process: fork/exec /opt/secret-7/helper: no such file or directory",
		`exec: "/opt/secret-7/helper": stat /opt/secret-7/helper: no such file or directory`,
		"unable to load custom CA bundle, AWS_CA_BUNDLE=/etc/secret-7/ca.pem",
		"dial unix /run/secret-7.sock: connect: connection refused",
		"read </etc/secret-7/password>: it is empty",
		"read 'file:///etc/secret-7/password'",
		"token file (/etc/secret-7/token), is empty",
		"two of them:/etc/secret-7/a,/etc/secret-7/b;/etc/secret-7/c",
		"/etc/secret-7/first: is a directory",
		"read\n\t/etc/secret-7/indented.",
		"profile `/etc/secret-7/quoted` and {/etc/secret-7/braced}",
		"open /secret-7: no such file",
	} {
		for _, kind := range []kind{kindManifest, kindBlob, kindTags, kindReferrers} {
			for name, got := range map[string]failure{
				"of the upstream":            failureOf(errors.New(text), known(kind)),
				"of one that cannot be used": failureOf(refusalOf("registry.test", "app", errors.New(text)), target{route: route{kind: kind}}),
			} {
				if strings.Contains(got.text, "secret-7") || !strings.Contains(got.text, localFile) {
					t.Errorf("%s: a client is told %q", name, got.text)
				}
			}
		}
	}
	for _, text := range []string{
		"GET /v2/a/manifests/v1 from registry.test: 404 Not Found",
		"GET /bucket/key from s3.test: 403 Forbidden",
		"POST / from api.ecr.us-east-1.amazonaws.com: 400 Bad Request",
		`Get "https://registry.test/v2/a/blobs/x": dial tcp 10.0.0.1:443: i/o timeout`,
		"read manifests/v1 from registry.test: it is too large",
		"arn:aws:ecr:us-east-1:123456789012:repository/team/app may not be read",
		"application/json is no manifest / index",
		"asked for (/v2/a/tags/list)",
	} {
		if got := failureOf(errors.New(text), known(kindManifest)).text; got != text {
			t.Errorf("%q became %q", text, got)
		}
	}
}

func TestTextOfAFailureIsBounded(t *testing.T) {
	for name, text := range map[string]string{
		"words":         strings.Repeat("word ", 1<<20),
		"one word":      strings.Repeat("x", 1<<20),
		"paths":         strings.Repeat(" /a/b", 1<<18),
		"slashes":       strings.Repeat("/", 1<<20),
		"invalid UTF-8": strings.Repeat("\xff", 1<<20),
		"controls":      strings.Repeat("\x1b", 1<<20),
	} {
		if got := failureOf(errors.New(text), known(kindManifest)).text; len(got) > maxReason+len("…") {
			t.Errorf("%s: %d bytes", name, len(got))
		}
	}
}
