package ecrtest

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/opencontainers/go-digest"
)

// signer is a secret key.
type signer string

// sign returns the code, in hex, that proves that the parts come from here.
// What kind of thing is signed is the first part; none may contain a newline.
func (k signer) sign(parts ...string) string {
	mac := hmac.New(sha256.New, []byte(k))
	mac.Write([]byte(strings.Join(parts, "\n")))
	return hex.EncodeToString(mac.Sum(nil))
}

// valid tells whether code is what sign returned for the same parts.
func (k signer) valid(code string, parts ...string) bool {
	return hmac.Equal([]byte(code), []byte(k.sign(parts...)))
}

// amzTime is the form of times in AWS's signatures.
const amzTime = "20060102T150405Z"

// objectPath returns where storage has a blob. Like S3's key it tells nothing
// of the digest to those who do not have the secret.
func (s *Server) objectPath(dgst digest.Digest) string {
	id := uuid.NewSHA1(uuid.Nil, []byte(s.signer.sign("object", dgst.String())))
	return "/" + s.opts.Account + "/" + id.String()
}

// signedURL returns a URL that storage answers to a GET of the blob, until it
// expires. The parameters are those of S3's presigned URLs; the security token
// carries the epoch, which ExpireURLs ends.
func (s *Server) signedURL(b *blob) string {
	s.mu.RLock()
	base := s.storageURL
	s.mu.RUnlock()
	_, host, _ := strings.Cut(base, "://")
	now := s.opts.Now().UTC()
	ttl := (s.opts.URLTTL + time.Second - 1) / time.Second
	query := url.Values{
		"X-Amz-Algorithm":      {"AWS4-HMAC-SHA256"},
		"X-Amz-Credential":     {"STARPORT/" + now.Format("20060102") + "/" + s.opts.Region + "/s3/aws4_request"},
		"X-Amz-Date":           {now.Format(amzTime)},
		"X-Amz-Expires":        {strconv.FormatInt(int64(ttl), 10)},
		"X-Amz-Security-Token": {strconv.FormatInt(s.urlEpoch.Load(), 10)},
		"X-Amz-SignedHeaders":  {"host"},
	}
	code := s.signer.sign("url", http.MethodGet, host, b.path, query.Encode())
	query.Set("X-Amz-Signature", code)
	return base + b.path + "?" + query.Encode()
}

// checkURL returns why a request's URL does not give access, or nil.
func (s *Server) checkURL(r *http.Request) *storageError {
	if r.Header.Get("Authorization") != "" {
		return &storageError{
			status: http.StatusBadRequest, Code: "InvalidArgument",
			Message: "Only one auth mechanism allowed; only the X-Amz-Algorithm query parameter, " +
				"Signature query string parameter or the Authorization header should be specified",
		}
	}
	query := r.URL.Query()
	code := query.Get("X-Amz-Signature")
	if code == "" {
		return &storageError{status: http.StatusForbidden, Code: "AccessDenied", Message: "Access Denied"}
	}
	query.Del("X-Amz-Signature")
	if !s.signer.valid(code, "url", r.Method, r.Host, r.URL.EscapedPath(), query.Encode()) {
		return &storageError{
			status: http.StatusForbidden, Code: "SignatureDoesNotMatch",
			Message: "The request signature we calculated does not match the signature you provided. " +
				"Check your key and signing method.",
		}
	}
	// The parameters were signed, so they are what signedURL wrote.
	signed, _ := time.Parse(amzTime, query.Get("X-Amz-Date"))
	ttl, _ := strconv.ParseInt(query.Get("X-Amz-Expires"), 10, 64)
	epoch, _ := strconv.ParseInt(query.Get("X-Amz-Security-Token"), 10, 64)
	expires, now := signed.Add(time.Duration(ttl)*time.Second), s.opts.Now()
	if epoch >= s.urlEpoch.Load() && now.Before(expires) {
		return nil
	}
	return &storageError{
		status: http.StatusForbidden, Code: "AccessDenied", Message: "Request has expired",
		AmzExpires: ttl,
		Expires:    expires.UTC().Format(time.RFC3339),
		ServerTime: now.UTC().Format(time.RFC3339),
	}
}

// ExpireURLs makes every signed URL issued so far an expired one. Bodies under
// way go on.
func (s *Server) ExpireURLs() { s.urlEpoch.Add(1) }
