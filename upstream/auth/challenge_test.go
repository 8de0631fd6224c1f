// The tests are inside the package as the parser of challenges has no face: what a
// challenge leads to is tested outside, in challenged_test.go.
package auth

import (
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// challenges are forms of the header, and what they say.
var challenges = map[string]challenge{
	`Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull"`: {"bearer", map[string]string{
		"realm": "https://auth.docker.io/token", "service": "registry.docker.io", "scope": "repository:a/b:pull",
	}},
	`Basic realm="https://123456789012.dkr.ecr.us-east-1.amazonaws.com/",service="ecr.amazonaws.com"`: {"basic", map[string]string{
		"realm": "https://123456789012.dkr.ecr.us-east-1.amazonaws.com/", "service": "ecr.amazonaws.com",
	}},
	`bEARER Realm=token , SERVICE = x`:             {"bearer", map[string]string{"realm": "token", "service": "x"}},
	`Bearer realm="a \"quoted\" \\ b",service="c"`: {"bearer", map[string]string{"realm": `a "quoted" \ b`, "service": "c"}},
	`Bearer realm="a,b=c", service="d"`:            {"bearer", map[string]string{"realm": "a,b=c", "service": "d"}},
	`Bearer realm="not closed`:                     {"bearer", map[string]string{"realm": "not closed"}},
	`Bearer realm="`:                               {"bearer", map[string]string{"realm": ""}},
	`Bearer realm=`:                                {"bearer", map[string]string{"realm": ""}},
	`Bearer ="x",realm="y"`:                        {"bearer", map[string]string{"realm": "y"}},
	`Bearer realm`:                                 {"bearer", map[string]string{}},
	`  Basic`:                                      {"basic", map[string]string{}},
}

func TestChallengeIsRead(t *testing.T) {
	for header, want := range challenges {
		got, ok := parseChallenge(http.Header{"Www-Authenticate": {header}})
		if !ok || got.scheme != want.scheme || !cmp.Equal(got.params, want.params) {
			t.Errorf("%s: %t, %+v; want %+v", header, ok, got, want)
		}
	}
}

func TestFirstChallengeOfAKnownSchemeCounts(t *testing.T) {
	got, ok := parseChallenge(http.Header{"Www-Authenticate": {`Negotiate`, `Bearer realm="x"`, `Basic realm="y"`}})
	if !ok || got.scheme != "bearer" || got.params["realm"] != "x" {
		t.Errorf("got %+v, %t", got, ok)
	}
	for _, unknown := range []http.Header{{}, {"Www-Authenticate": {""}}, {"Www-Authenticate": {"Negotiate"}}} {
		if got, ok := parseChallenge(unknown); ok {
			t.Errorf("%v reads as %+v", unknown, got)
		}
	}
}

func FuzzParseChallenge(f *testing.F) {
	for header := range challenges {
		f.Add(header)
	}
	f.Fuzz(func(t *testing.T, header string) {
		got, ok := parseChallenge(http.Header{"Www-Authenticate": {header}})
		if !ok {
			return
		}
		if got.scheme != "bearer" && got.scheme != "basic" {
			t.Errorf("%q: scheme %q", header, got.scheme)
		}
		var size int
		for key, value := range got.params {
			if key == "" || key != strings.ToLower(key) {
				t.Errorf("%q: parameter %q", header, key)
			}
			if value != strings.TrimSpace(value) {
				t.Errorf("%q: value %q", header, value)
			}
			size += len(value)
		}
		if size > len(header) {
			t.Errorf("%q: %d bytes of values out of nothing: %v", header, size, got.params)
		}
	})
}
