package redact_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/larder-registry/larder/upstream/redact"
)

func request(t *testing.T, method, target, body string) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, target, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	return req
}

func TestTextDoesNotRepeatWhatARequestWasSentWith(t *testing.T) {
	basic := request(t, http.MethodGet, "https://registry.test/v2/a/manifests/v1?n=1000&last=latest", "")
	basic.SetBasicAuth("me", `hunter"2&3`)
	bearer := request(t, http.MethodGet, "https://registry.test/v2/", "")
	bearer.Header.Set("Authorization", "Bearer abcdefgh")
	signed := request(t, http.MethodGet, "https://s3.test/x?X-Amz-Signature=0badc0ffee&X-Amz-Credential=AKID%2F2026", "")
	refresh := request(t, http.MethodPost, "https://auth.test/token", url.Values{"refresh_token": {"r3fresh"}, "scope": {"repository:a:pull"}}.Encode())
	refresh.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	for _, test := range []struct {
		sent       *http.Request
		text, want string
	}{
		{basic, `bad header Authorization: Basic bWU6aHVudGVyIjImMw==`, `bad header Authorization: [redacted]`},
		{basic, `the password hunter"2&3 is wrong`, `the password [redacted] is wrong`},
		{basic, `{"password":"hunter\"2\u00263"}`, `{"password":"[redacted]"}`},
		{basic, `p=hunter%222%263`, `p=[redacted]`},
		{basic, `page 1000 after latest is unknown`, `page 1000 after latest is unknown`},
		{bearer, `token abcdefgh is no good`, `token [redacted] is no good`},
		{signed, `0badc0ffee does not match AKID/2026, or AKID%2F2026`, `[redacted] does not match [redacted], or [redacted]`},
		{refresh, `no refresh r3fresh for repository:a:pull`, `no refresh [redacted] for repository:a:pull`},
	} {
		if got := redact.Of(test.sent).Text(test.text); got != test.want {
			t.Errorf("%q becomes %q, want %q", test.text, got, test.want)
		}
	}
}

func TestTextDoesNotShowWhatLooksSecret(t *testing.T) {
	for text, want := range map[string]string{
		`malformed MIME header line: Location https://s3.test/x?X-Amz-Signature=ab`: `malformed MIME header line: Location https://s3.test/x?[redacted]`,
		`see "https://s3.test/x?a=b&c=d#e", or <https://y.test?z>`:                  `see "https://s3.test/x?[redacted]", or <https://y.test?[redacted]>`,
		`parse "/x?y=1&X-Amz-Security-Token=abc": no`:                               `parse "/x?y=1&X-Amz-Security-Token=[redacted]": no`,
		`signed host:ecr.test x-amz-security-token:abc, no`:                         `signed host:ecr.test x-amz-security-token:[redacted] no`,
		`invalid proxy address "http://me:pw@proxy:x"`:                              `invalid proxy address "http://[redacted]@proxy:x"`,
		`got Authorization: bearer eyJ0.eyJ1.c2ln`:                                  `got Authorization: bearer [redacted]`,
		`Bearer authentication is needed`:                                           `Bearer authentication is needed`,
		`User: arn:aws:iam::1:user/a is not authorized: ecr:BatchGetImage`:          `User: arn:aws:iam::1:user/a is not authorized: ecr:BatchGetImage`,
		`see https://docs.test/a/b#c`:                                               `see https://docs.test/a/b#c`,
	} {
		if got := redact.Secrets(nil).Text(text); got != want {
			t.Errorf("%q becomes %q, want %q", text, got, want)
		}
	}
}

func TestRedactedErrorIsStillItself(t *testing.T) {
	err := fmt.Errorf("read https://s3.test/x?sig=1: %w", io.ErrUnexpectedEOF)
	got := redact.Secrets(nil).Error(err)
	if !errors.Is(got, io.ErrUnexpectedEOF) || got.Error() != "read https://s3.test/x?[redacted]: unexpected EOF" {
		t.Errorf("got %v", got)
	}
	if got := redact.Secrets(nil).Error(io.EOF); got != io.EOF {
		t.Errorf("an error without a secret becomes %v", got)
	}
	if redact.Secrets(nil).Error(nil) != nil {
		t.Error("no error becomes one")
	}
}

func TestErrorOfJSONQuotesNoValue(t *testing.T) {
	var doc struct{ Token string }
	err := redact.JSON(json.Unmarshal([]byte(`{"token":4711}`), &doc))
	if err == nil || strings.Contains(err.Error(), "4711") || !strings.Contains(strings.ToLower(err.Error()), "token") {
		t.Errorf("got %v", err)
	}
}

func TestTextDoesNotRepeatWhatWasSentBefore(t *testing.T) {
	m := redact.NewMemory()
	login := request(t, http.MethodGet, "https://auth.test/token", "")
	login.SetBasicAuth("me", "hunter2")
	m.Sending(login)
	storage := m.Sending(request(t, http.MethodGet, "https://s3.test/x", ""))
	if got := redact.Of(storage).Text("hunter2 is wrong"); got != "[redacted] is wrong" {
		t.Errorf("got %q", got)
	}
	other := redact.NewMemory().Sending(request(t, http.MethodGet, "https://s3.test/x", ""))
	if got := redact.Of(other).Text("hunter2 is wrong"); got != "hunter2 is wrong" {
		t.Errorf("of another upstream: %q", got)
	}
}
