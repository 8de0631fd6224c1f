package upstream

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/distribution/distribution/v3/registry/api/errcode"
)

// Error is an answer that is not what was asked for.
type Error struct {
	// Op and Host say what was asked of whom: "GET /v2/a/manifests/v1".
	Op, Host string
	// Status is the HTTP status.
	Status int
	// Detail is the first error of the body in the registry's words; Code is
	// ErrorCodeUnknown where the body has none.
	Detail errcode.Error
	// Wait is what the upstream asked for by Retry-After, or 0.
	Wait time.Duration

	slowDown bool // S3's way to say that there are too many requests
}

func (e *Error) Error() string {
	text := fmt.Sprintf("%s from %s: %d %s", e.Op, e.Host, e.Status, http.StatusText(e.Status))
	if e.Detail.Message != "" {
		text += ": " + explained(e.Detail.Message)
	}
	return text
}

// DenialAttrs says for a log what AWS does not allow and what would; nil if the
// answer is not AWS's denial.
func (e *Error) DenialAttrs() []slog.Attr { return denialAttrs(e.Detail.Message) }

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

// Unwrap gives the registry's own error.
func (e *Error) Unwrap() error { return e.Detail }

// RetryAfter is how long the upstream wants to be left alone, or 0.
func (e *Error) RetryAfter() time.Duration { return e.Wait }

// Throttled reports whether the upstream refused because of too many requests.
func (e *Error) Throttled() bool { return e.Status == http.StatusTooManyRequests || e.slowDown }

// isThrottled reports an error that is because of too many requests.
func isThrottled(err error) bool {
	var throttled interface{ Throttled() bool }
	return errors.As(err, &throttled) && throttled.Throttled()
}

// temporary reports whether the same request may succeed shortly.
func (e *Error) temporary() bool {
	switch e.Status {
	case http.StatusTooManyRequests, http.StatusRequestTimeout, http.StatusInternalServerError,
		http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	}
	return false
}

// refusedError is a connection that this side did not make.
type refusedError struct {
	what, target string
}

func (e *refusedError) Error() string {
	return fmt.Sprintf("%s to %s is refused: an upstream may not lead there", e.what, e.target)
}

// logRefusal reports a connection that was not made.
func logRefusal(log *slog.Logger, err error) {
	var refused *refusedError
	if errors.As(err, &refused) {
		log.Warn("connection refused by policy", "error", err)
	}
}

// maxErrorBody bounds what is read of an error's body: ECR's and S3's are below
// 2 KiB.
const maxErrorBody = 64 << 10

// errorFrom reads an answer's body and closes it.
func errorFrom(resp *http.Response) *Error {
	defer resp.Body.Close()
	body := peek(resp)
	return &Error{
		Op:     resp.Request.Method + " " + resp.Request.URL.Path,
		Host:   resp.Request.URL.Host,
		Status: resp.StatusCode,
		Wait:   retryAfter(resp.Header),
		Detail: firstError(body),

		slowDown: resp.StatusCode == http.StatusServiceUnavailable && bytes.Contains(body, []byte("<Code>SlowDown</Code>")),
	}
}

// peek returns the beginning of an error's body and leaves the body whole.
func peek(resp *http.Response) []byte {
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxErrorBody))
	if err != nil {
		body = nil // what it says is lost; the status stays
	}
	resp.Body.Close()
	resp.Body = io.NopCloser(bytes.NewReader(body))
	return body
}

// firstError reads a body as the specification's error document
// (distribution-spec, "Error Codes").
func firstError(body []byte) errcode.Error {
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
		Message: oneLine(first.Message),
	}
}

// maxMessage bounds a registry's words, in bytes. AWS's denials have up to 600.
const maxMessage = 2 << 10

// oneLine is a text as it can stand in an error, which ends up in logs and in
// "kubectl describe pod".
func oneLine(text string) string {
	text = strings.Join(strings.Fields(text), " ")
	if len(text) > maxMessage {
		text = strings.ToValidUTF8(text[:maxMessage], "") + "…"
	}
	return text
}

// retryAfter reads the header in both of its forms (RFC 9110, 10.2.3).
func retryAfter(h http.Header) time.Duration {
	v := h.Get("Retry-After")
	if v == "" {
		return 0
	}
	if s, err := strconv.Atoi(v); err == nil {
		return time.Duration(max(s, 0)) * time.Second
	}
	if at, err := http.ParseTime(v); err == nil {
		return max(time.Until(at), 0)
	}
	return 0
}

var errTimeout = errors.New("no answer in time")
