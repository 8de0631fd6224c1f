package redact

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
)

// mask stands in the place of a secret.
const mask = "[redacted]"

// Secrets are texts that must not be shown, the longest first.
type Secrets []string

// minSecret is the length of the shortest secret that is looked for, in bytes. A
// shorter one would be found everywhere.
const minSecret = 4

// plainParameters are the parameters of queries that are no secret: those of lists
// and of token services.
var plainParameters = []string{"account", "artifactType", "client_id", "grant_type", "last", "n", "ns", "scope", "service"}

// Of returns the secrets that a request is sent with: those of its Authorization
// header, of its URL, of a form in its body, and of requests before it (see
// [Memory]).
func Of(req *http.Request) Secrets {
	s := append(credentials(req), remembered(req)...)
	if secret := parameters(req.URL.Query()); len(secret) > 0 {
		s = append(append(s, secret...), req.URL.RawQuery)
	}
	return Secrets(s).complete()
}

// credentials returns the secrets of a request outside of its URL.
func credentials(req *http.Request) []string {
	var s []string
	if v := req.Header.Get("Authorization"); v != "" {
		_, value, _ := strings.Cut(v, " ")
		s = append(s, v, value)
		if username, password, ok := req.BasicAuth(); ok {
			s = append(s, username+":"+password, password)
		}
	}
	if v := req.Header.Get("X-Amz-Security-Token"); v != "" {
		s = append(s, v) // of AWS's temporary credentials
	}
	if req.GetBody != nil && req.Header.Get("Content-Type") == "application/x-www-form-urlencoded" {
		s = append(s, form(req)...)
	}
	return s
}

// form returns the secrets in a form, which is of our own making and small.
func form(req *http.Request) []string {
	body, err := req.GetBody()
	if err != nil {
		return nil
	}
	defer body.Close()
	raw, err := io.ReadAll(body)
	if err != nil {
		return nil
	}
	values, err := url.ParseQuery(string(raw))
	if err != nil {
		return nil
	}
	return parameters(values)
}

func parameters(values url.Values) []string {
	var s []string
	for key, all := range values {
		if !slices.Contains(plainParameters, key) {
			s = append(s, all...)
		}
	}
	return s
}

// complete adds the forms in which a secret may be written, leaves out what is too
// short, and sorts.
func (s Secrets) complete() Secrets {
	var all Secrets
	for _, secret := range s {
		quoted, _ := json.Marshal(secret) // a string always marshals
		all = append(all, secret, url.QueryEscape(secret), strings.Trim(string(quoted), `"`),
			base64.StdEncoding.EncodeToString([]byte(secret)))
	}
	all = slices.DeleteFunc(all, func(secret string) bool { return len(secret) < minSecret })
	slices.SortFunc(all, func(a, b string) int { return cmp.Or(cmp.Compare(len(b), len(a)), cmp.Compare(a, b)) })
	return slices.Compact(all)
}

// patterns are what is secret in any text, with what is left of it.
var patterns = []struct {
	is   *regexp.Regexp
	left string
}{
	// The user and password of a URL, such as a proxy's.
	{regexp.MustCompile(`(://)[^/\s"'<>?#@]*@`), "${1}" + mask + "@"},
	// The query and fragment of a URL, which may be signed.
	{regexp.MustCompile(`(?i)(\b[a-z][a-z0-9+.-]*://[^\s"'<>?#]*\?)[^\s"'<>]*[^\s"'<>:,.;)]`), "${1}" + mask},
	// AWS's session token in a list of headers, as in the canonical request of a wrong signature.
	{regexp.MustCompile(`(?i)\b(X-Amz-Security-Token: ?)[^\s"'<>]+`), "${1}" + mask},
	// Parameters of a signed URL that has lost its beginning.
	{regexp.MustCompile(`(?i)\b((?:X-(?:Amz|Goog|Oss)-[a-z-]+|Signature|sig|AWSAccessKeyId|Key-Pair-Id|access_token|refresh_token)=)[^\s&"'<>]+`), "${1}" + mask},
	// The value of an Authorization header: a word with a digit or a sign of base64.
	{regexp.MustCompile(`(?i)\b(Basic|Bearer) +[a-z._~-]*[0-9+/=][a-z0-9._~+/=-]*`), "${1} " + mask},
}

// Text returns a text in which each secret, and all that looks like one, is masked.
func (s Secrets) Text(text string) string {
	for _, secret := range s {
		text = strings.ReplaceAll(text, secret, mask)
	}
	for _, p := range patterns {
		text = p.is.ReplaceAllString(text, p.left)
	}
	return text
}

// Error returns an error whose text is that of err without secrets. It unwraps to
// err; nil stays nil.
func (s Secrets) Error(err error) error {
	if err == nil {
		return nil
	}
	if text := s.Text(err.Error()); text != err.Error() {
		return &redacted{text, err}
	}
	return err
}

// redacted is an error whose text has been redacted.
type redacted struct {
	text  string
	cause error
}

func (e *redacted) Error() string { return e.text }
func (e *redacted) Unwrap() error { return e.cause }

// JSON returns an error of package json without the value that it quotes, for
// documents that hold secrets. It does not unwrap to err.
func JSON(err error) error {
	var wrong *json.UnmarshalTypeError
	if errors.As(err, &wrong) {
		return fmt.Errorf("%s has a value of another kind", cmp.Or(wrong.Field, "the document"))
	}
	return err // names an offset or a single character
}
