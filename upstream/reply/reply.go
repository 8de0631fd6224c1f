package reply

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/distribution/distribution/v3/registry/api/errcode"

	"github.com/larder-registry/larder/upstream/ecr/denial"
	"github.com/larder-registry/larder/upstream/redact"
)

// ErrTimeout is the cause with which the context of a request ends when the
// upstream did not answer in time. Any other cause means that the caller left.
var ErrTimeout = errors.New("no answer in time")

// CallerLeft reports whether ctx ended because its caller does not wait any
// more, rather than because the answer did not come in time.
func CallerLeft(ctx context.Context) bool {
	return ctx.Err() != nil && !errors.Is(context.Cause(ctx), ErrTimeout)
}

// Error is an answer with another status than the request wanted. It is
// fs.ErrNotExist for 404 and 410, and fs.ErrPermission for 401 and 403.
type Error struct {
	// Op is the request, such as "GET /v2/a/manifests/v1"; Host is where it went.
	Op, Host string
	// Status is the HTTP status.
	Status int
	// Detail is the first error of the body's error document. Its code is
	// ErrorCodeUnknown if the body has none. Its message may be the reason of a
	// storage, such as S3.
	Detail errcode.Error
	// Wait is the value of Retry-After, or 0.
	Wait time.Duration

	slowDown bool // S3's form of a 429
}

// maxBody bounds what is read of an error's body, in bytes. Those of ECR and S3
// are below 2 KiB.
const maxBody = 64 << 10

// Read makes an Error of an answer, and closes the answer's body.
func Read(resp *http.Response) *Error {
	defer resp.Body.Close()
	body := Peek(resp)
	return &Error{
		Op:     resp.Request.Method + " " + resp.Request.URL.Path,
		Host:   resp.Request.URL.Host,
		Status: resp.StatusCode,
		Wait:   retryAfter(resp.Header),
		Detail: reason(body, redact.Of(resp.Request)),

		slowDown: resp.StatusCode == http.StatusServiceUnavailable && bytes.Contains(body, []byte("<Code>SlowDown</Code>")),
	}
}

// Peek returns the first 64 KiB of an error's body, and leaves them to be read
// again. If the body cannot be read, Peek returns nil.
func Peek(resp *http.Response) []byte {
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	if err != nil {
		body = nil // the status is still known
	}
	resp.Body.Close()
	resp.Body = io.NopCloser(bytes.NewReader(body))
	return body
}

// Detail returns the first error of an answer's error document, and leaves the
// body to be read again. Its code is ErrorCodeUnknown if there is none.
func Detail(resp *http.Response) errcode.Error {
	return firstError(Peek(resp), redact.Of(resp.Request))
}

func (e *Error) Error() string {
	text := fmt.Sprintf("%s from %s: %d %s", e.Op, e.Host, e.Status, http.StatusText(e.Status))
	if e.Detail.Message != "" {
		text += ": " + denial.Explain(e.Detail.Message)
	}
	return text
}

// DenialAttrs returns log attributes with the action that AWS denied and the
// statement that would allow it, or nil if the answer is no denial by AWS.
func (e *Error) DenialAttrs() []slog.Attr { return denial.Attrs(e.Detail.Message) }

// Is makes an Error fs.ErrNotExist or fs.ErrPermission by its status.
func (e *Error) Is(target error) bool {
	switch target {
	case fs.ErrNotExist:
		return e.Status == http.StatusNotFound || e.Status == http.StatusGone
	case fs.ErrPermission:
		return e.Status == http.StatusUnauthorized || e.Status == http.StatusForbidden
	}
	return false
}

// Unwrap returns the registry's own error.
func (e *Error) Unwrap() error { return e.Detail }

// RetryAfter returns how long the upstream asked clients to wait, or 0.
func (e *Error) RetryAfter() time.Duration { return e.Wait }

// Throttled reports whether the upstream refused because of too many requests.
func (e *Error) Throttled() bool { return e.Status == http.StatusTooManyRequests || e.slowDown }

// Temporary reports whether the same request may succeed shortly.
func (e *Error) Temporary() bool {
	switch e.Status {
	case http.StatusTooManyRequests, http.StatusRequestTimeout, http.StatusInternalServerError,
		http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	}
	return false
}

// IsRedirect reports an answer that leads to another URL.
func IsRedirect(resp *http.Response) bool {
	switch resp.StatusCode {
	case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther,
		http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		return resp.Header.Get("Location") != ""
	}
	return false
}

// Unsupported reports whether the registry says, in whatever words, that it has no
// such resource: a status that is neither success nor a refusal, throttling or
// failure. Registries without the referrers API answer 400, 404, 405, 406 or 501.
func (e *Error) Unsupported() bool {
	switch e.Status {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusProxyAuthRequired,
		http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests:
		return false
	}
	return e.Status < http.StatusInternalServerError || e.Status == http.StatusNotImplemented
}

// ContentError is an answer with a good status whose content cannot be what the
// request is for, such as a login page instead of a blob. It is fs.ErrNotExist: the
// same question brings the same content.
type ContentError struct {
	// Host is where the answer came from, and Reason what is wrong with it.
	Host, Reason string
}

func (e *ContentError) Error() string { return e.Host + " " + e.Reason }

// Is makes a ContentError fs.ErrNotExist.
func (e *ContentError) Is(target error) bool { return target == fs.ErrNotExist }

// IsThrottled reports an error because of too many requests: of an upstream's
// answer, or of a request that was therefore not sent.
func IsThrottled(err error) bool {
	var throttled interface{ Throttled() bool }
	return errors.As(err, &throttled) && throttled.Throttled()
}

// reason returns what a body says is wrong, in either of the forms of [firstError] and
// [storageReason].
func reason(body []byte, sent redact.Secrets) errcode.Error {
	detail := firstError(body, sent)
	if detail.Message == "" {
		detail.Message = OneLine(sent.Text(storageReason(body))) // a secret that is cut short would not be found
	}
	return detail
}

// storageReason reads a body as the error document of S3 (API reference, "Error
// responses"), which Azure and Google use too: "AccessDenied: Request has expired". It
// is "" if there is none. Only the code and the message are used: the other elements
// have the access key, the signed text and the URL.
func storageReason(body []byte) string {
	var doc struct {
		XMLName xml.Name `xml:"Error"`
		Code    string   `xml:"Code"`
		Message string   `xml:"Message"`
	}
	body = bytes.TrimPrefix(body, []byte("\ufeff")) // Azure's documents begin with a byte order mark
	if !bytes.HasPrefix(bytes.TrimSpace(body), []byte("<")) || xml.Unmarshal(body, &doc) != nil {
		return ""
	}
	words := strings.Fields(doc.Code + ": " + doc.Message)
	for i, word := range words {
		if strings.Contains(word, "://") || strings.Contains(word, "X-Amz-") || strings.Contains(word, "sig=") {
			words[i] = "…" // a URL may be signed
		}
	}
	return strings.Trim(strings.Join(words, " "), ": ")
}

// firstError reads a body as the specification's error document
// (distribution-spec, "Error Codes"). An upstream may repeat what it was sent.
func firstError(body []byte, sent redact.Secrets) errcode.Error {
	var doc struct {
		Errors []struct {
			Code    string `json:"code"`
			Message string `json:"message"`
		} `json:"errors"`
	}
	if json.Unmarshal(body, &doc) != nil || len(doc.Errors) == 0 {
		return errcode.Error{Code: errcode.ErrorCodeUnknown}
	}
	first := doc.Errors[0]
	return errcode.Error{
		Code:    errcode.ParseErrorCode(first.Code),
		Message: OneLine(sent.Text(first.Message)),
	}
}

// maxMessage bounds a registry's message, in bytes. AWS's denials have up to
// 600.
const maxMessage = 2 << 10

// OneLine returns a text on one line, without control characters and of at most 2 KiB, for an
// error that ends up in logs, in terminals and in "kubectl describe pod".
func OneLine(text string) string {
	text = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) { // an upstream could rewrite the line
			return ' '
		}
		return r
	}, text)
	text = strings.Join(strings.Fields(text), " ")
	if len(text) > maxMessage {
		text = strings.ToValidUTF8(text[:maxMessage], "") + "…"
	}
	return text
}

// maxRetryAfter bounds Retry-After, whose number may be any. Quotas that last longest are of
// six hours (Docker Hub, "Pull usage and limits").
const maxRetryAfter = 24 * time.Hour

// retryAfter reads the header in both of its forms (RFC 9110, 10.2.3).
func retryAfter(h http.Header) time.Duration {
	v := h.Get("Retry-After")
	if v == "" {
		return 0
	}
	if s, err := strconv.Atoi(v); err == nil {
		return time.Duration(min(max(s, 0), int(maxRetryAfter/time.Second))) * time.Second
	}
	if at, err := http.ParseTime(v); err == nil {
		return min(max(time.Until(at), 0), maxRetryAfter)
	}
	return 0
}
