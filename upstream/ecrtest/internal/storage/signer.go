package storage

import (
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/larder-registry/larder/upstream/ecrtest/internal/secret"
)

// amzTime is the form of times in signed URLs.
const amzTime = "20060102T150405Z"

// signer signs URLs and checks them.
type signer struct {
	key    secret.Key
	region string
	ttl    time.Duration
	now    func() time.Time

	base  atomic.Pointer[string] // scheme and host of the URLs; nil before setBase
	epoch atomic.Int64           // URLs of an earlier epoch have expired
}

func (s *signer) setBase(u string) { s.base.Store(new(strings.TrimSuffix(u, "/"))) }

// url returns a signed URL for a GET of a path. The parameters are those of S3's
// presigned URLs; the security token carries the epoch.
func (s *signer) url(path string) string {
	var base string
	if p := s.base.Load(); p != nil {
		base = *p
	}
	_, host, _ := strings.Cut(base, "://")
	now := s.now().UTC()
	ttl := (s.ttl + time.Second - 1) / time.Second
	query := url.Values{
		"X-Amz-Algorithm":      {"AWS4-HMAC-SHA256"},
		"X-Amz-Credential":     {"STARPORT/" + now.Format("20060102") + "/" + s.region + "/s3/aws4_request"},
		"X-Amz-Date":           {now.Format(amzTime)},
		"X-Amz-Expires":        {strconv.FormatInt(int64(ttl), 10)},
		"X-Amz-Security-Token": {strconv.FormatInt(s.epoch.Load(), 10)},
		"X-Amz-SignedHeaders":  {"host"},
	}
	query.Set("X-Amz-Signature", s.key.Sign("url", http.MethodGet, host, path, query.Encode()))
	return base + path + "?" + query.Encode()
}

// check returns the error for a request whose URL does not give access, or nil.
func (s *signer) check(r *http.Request) *s3Error {
	if r.Header.Get("Authorization") != "" {
		return &s3Error{
			status: http.StatusBadRequest, Code: "InvalidArgument",
			Message: "Only one auth mechanism allowed; only the X-Amz-Algorithm query parameter, " +
				"Signature query string parameter or the Authorization header should be specified",
		}
	}
	query := r.URL.Query()
	code := query.Get("X-Amz-Signature")
	if code == "" {
		return &s3Error{status: http.StatusForbidden, Code: "AccessDenied", Message: "Access Denied"}
	}
	query.Del("X-Amz-Signature")
	if !s.key.Valid(code, "url", r.Method, r.Host, r.URL.EscapedPath(), query.Encode()) {
		return &s3Error{
			status: http.StatusForbidden, Code: "SignatureDoesNotMatch",
			Message: "The request signature we calculated does not match the signature you provided. " +
				"Check your key and signing method.",
		}
	}
	// The parameters were signed, so url has written them and they can be parsed.
	signed, _ := time.Parse(amzTime, query.Get("X-Amz-Date"))
	ttl, _ := strconv.ParseInt(query.Get("X-Amz-Expires"), 10, 64)
	epoch, _ := strconv.ParseInt(query.Get("X-Amz-Security-Token"), 10, 64)
	expires, now := signed.Add(time.Duration(ttl)*time.Second), s.now()
	if epoch >= s.epoch.Load() && now.Before(expires) {
		return nil
	}
	return &s3Error{
		status: http.StatusForbidden, Code: "AccessDenied", Message: "Request has expired",
		AmzExpires: ttl,
		Expires:    expires.UTC().Format(time.RFC3339),
		ServerTime: now.UTC().Format(time.RFC3339),
	}
}
