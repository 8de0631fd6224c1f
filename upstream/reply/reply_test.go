package reply_test

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode"

	"github.com/distribution/distribution/v3/registry/api/errcode"

	"github.com/larder-registry/larder/upstream/reply"
)

// respond returns an answer to GET /v2/a/manifests/v1 of registry.test.
func respond(t *testing.T, status int, header http.Header, body io.Reader) *http.Response {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://registry.test/v2/a/manifests/v1?secret=x", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	return &http.Response{StatusCode: status, Header: header, Body: io.NopCloser(body), Request: req}
}

func TestRetryAfterIsReadInBothForms(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for value, want := range map[string]time.Duration{
			"":    0,
			"0":   0,
			"120": 2 * time.Minute,
			"-5":  0,
			"1.5": 0,
			"now": 0,
			time.Now().Add(90 * time.Second).UTC().Format(http.TimeFormat):  90 * time.Second,
			time.Now().Add(-90 * time.Second).UTC().Format(http.TimeFormat): 0,
			"99999999999999999999": 0,
			"9223372036854775807":  24 * time.Hour, // a duration has no such number of seconds
			"86401":                24 * time.Hour,
		} {
			got := reply.Read(respond(t, http.StatusTooManyRequests, http.Header{"Retry-After": {value}}, http.NoBody))
			if got.RetryAfter() != want {
				t.Errorf("%q is %v, want %v", value, got.RetryAfter(), want)
			}
		}
	})
}

func TestErrorHasTheRegistrysWords(t *testing.T) {
	for body, want := range map[string]errcode.Error{
		`{"errors":[{"code":"NAME_UNKNOWN","message":" no such name "},{"code":"DENIED"}]}`: {Code: errcode.ErrorCodeNameUnknown, Message: "no such name"},
		`{"errors":[{"code":"SOMETHING_NEW","message":"x"}]}`:                               {Code: errcode.ErrorCodeUnknown, Message: "x"},
		`{"errors":[]}`:                 {Code: errcode.ErrorCodeUnknown},
		`{"errors":"x"}`:                {Code: errcode.ErrorCodeUnknown},
		"Not Authorized\n":              {Code: errcode.ErrorCodeUnknown},
		"<Error><Code>x</Code></Error>": {Code: errcode.ErrorCodeUnknown},
		"":                              {Code: errcode.ErrorCodeUnknown},
	} {
		resp := respond(t, http.StatusForbidden, nil, strings.NewReader(body))
		if got := reply.Detail(resp); got.Code != want.Code || got.Message != want.Message {
			t.Errorf("%s: %+v, want %+v", body, got, want)
		}
		if again, err := io.ReadAll(resp.Body); err != nil || string(again) != body {
			t.Errorf("%s: read again it is %s, %v", body, again, err)
		}
	}
}

func TestErrorHasTheReasonOfTheStorageWithoutSecrets(t *testing.T) {
	for body, want := range map[string]string{
		`<?xml version="1.0" encoding="UTF-8"?>
<Error><Code>AccessDenied</Code><Message>Request has expired</Message><X-Amz-Expires>3600</X-Amz-Expires><RequestId>R</RequestId></Error>`: "403 Forbidden: AccessDenied: Request has expired",
		`<Error><Code>SignatureDoesNotMatch</Code><Message>It does not match.</Message><AWSAccessKeyId>AKIDSECRET</AWSAccessKeyId>` +
			`<StringToSign>secret</StringToSign></Error>`: "403 Forbidden: SignatureDoesNotMatch: It does not match.",
		"\ufeff<?xml version=\"1.0\"?><Error><Code>AuthenticationFailed</Code><Message>No.\nTime:12</Message></Error>": "403 Forbidden: AuthenticationFailed: No. Time:12",
		`<Error><Code>X</Code><Message>see https://bucket/key?X-Amz-Signature=secret and sig=secret</Message></Error>`: "403 Forbidden: X: see … and …",
		`<Error><Code>NoMessage</Code></Error>`:   "403 Forbidden: NoMessage",
		`<html><body>secret</body></html>`:        "403 Forbidden",
		`<Error><Code>cut`:                        "403 Forbidden",
		`{"errors":[{"message":"a registry's"}]}`: "403 Forbidden: a registry's",
	} {
		err := reply.Read(respond(t, http.StatusForbidden, nil, strings.NewReader(body)))
		if text := err.Error(); text != "GET /v2/a/manifests/v1 from registry.test: "+want {
			t.Errorf("%s: %s, want %s", body, text, want)
		}
		if err.Detail.Code != errcode.ErrorCodeUnknown && !strings.HasPrefix(body, "{") {
			t.Errorf("%s: code %v", body, err.Detail.Code)
		}
	}
}

func TestErrorIsItsStatusAndOneLine(t *testing.T) {
	body := `{"errors":[{"code":"DENIED","message":"no\r\n\tnever\n` + strings.Repeat("again ", 1000) + `"}]}`
	err := reply.Read(respond(t, http.StatusForbidden, nil, strings.NewReader(body)))
	const want = "GET /v2/a/manifests/v1 from registry.test: 403 Forbidden: no never again again"
	if text := err.Error(); !strings.HasPrefix(text, want) || strings.ContainsAny(text, "\r\n\t") || len(text) > 4<<10 {
		t.Errorf("%d bytes: %.200q, want one line", len(text), text)
	}
}

func TestStatusIsTheKindOfError(t *testing.T) {
	for status, want := range map[int]error{
		http.StatusNotFound: fs.ErrNotExist, http.StatusGone: fs.ErrNotExist,
		http.StatusUnauthorized: fs.ErrPermission, http.StatusForbidden: fs.ErrPermission,
		http.StatusTooManyRequests: nil, http.StatusInternalServerError: nil,
	} {
		err := reply.Read(respond(t, status, nil, http.NoBody))
		for _, kind := range []error{fs.ErrNotExist, fs.ErrPermission} {
			if got := errors.Is(err, kind); got != errors.Is(want, kind) {
				t.Errorf("%d: being %v is %t", status, kind, got)
			}
		}
	}
}

func TestTooManyRequestsIsAlsoS3sSlowDown(t *testing.T) {
	slow := "<?xml version=\"1.0\"?>\n<Error><Code>SlowDown</Code></Error>"
	for _, test := range []struct {
		status int
		body   string
		want   bool
	}{
		{http.StatusTooManyRequests, "", true},
		{http.StatusServiceUnavailable, slow, true},
		{http.StatusServiceUnavailable, "", false},
		{http.StatusForbidden, slow, false},
	} {
		err := fmt.Errorf("wrapped: %w", reply.Read(respond(t, test.status, nil, strings.NewReader(test.body))))
		if got := reply.IsThrottled(err); got != test.want {
			t.Errorf("%d %s: throttled %t, want %t", test.status, test.body, got, test.want)
		}
	}
}

func TestPeekReadsUpToABound(t *testing.T) {
	if body := reply.Peek(respond(t, http.StatusNotFound, nil, endless{})); len(body) != 64<<10 {
		t.Errorf("read %d bytes", len(body))
	}
}

// endless is a body that never ends.
type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

// The text reaches the terminals of operators and clients.
func TestWordsOfARegistryCannotControlATerminal(t *testing.T) {
	for name, evil := range map[string]string{
		"an escape sequence":  `\u001b[2J\u001b[H`,
		"a title":             `\u001b]0;root\u0007`,
		"C1's sequence":       `\u009b31m`,
		"backspaces":          `\b\b\b`,
		"a carriage return":   `\r`,
		"a null":              `\u0000`,
		"a delete":            `\u007f`,
		"a next line":         `\u0085`,
		"a line separator":    `\u2028`,
		"a right-to-left":     `\u202e`,
		"an isolate":          `\u2066`,
		"a mark of direction": `\u200f`,
	} {
		body := `{"errors":[{"code":"DENIED","message":"be` + evil + `fore"}]}`
		text := reply.Read(respond(t, http.StatusForbidden, nil, strings.NewReader(body))).Error()
		if !strings.Contains(text, "be") || !strings.Contains(text, "fore") {
			t.Errorf("%s: %q has not the words", name, text)
		}
		for _, r := range text {
			if unicode.IsControl(r) || unicode.In(r, unicode.Bidi_Control, unicode.Zl, unicode.Zp) {
				t.Errorf("%s: %q", name, text)
			}
		}
	}
}

func TestAbsurdRetryAfterIsBounded(t *testing.T) {
	for _, value := range []string{
		"-9223372036854775808", "9223372036854775808", "+86400000", "0x7fffffff", "1e9", " 5", "5 ", "5, 99999999", "NaN", "Infinity",
		"Fri, 31 Dec 9999 23:59:59 GMT", "Thu, 01 Jan 0001 00:00:00 GMT", "Mon, 00 Jan 2026 00:00:00 GMT", strings.Repeat("9", 100_000), "\x00", "\xff",
	} {
		got := reply.Read(respond(t, http.StatusTooManyRequests, http.Header{"Retry-After": {value}}, http.NoBody)).RetryAfter()
		if got < 0 || got > 24*time.Hour {
			t.Errorf("%.50q is %v", value, got)
		}
	}
}
