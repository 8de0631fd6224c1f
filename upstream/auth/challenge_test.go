// The tests are inside the package as the parser of challenges has no face: what a
// challenge leads to is tested outside, in challenged_test.go.
package auth

import (
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
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
		got := parseChallenges(http.Header{"Www-Authenticate": {header}})
		if diff := cmp.Diff([]challenge{want}, got, cmp.AllowUnexported(challenge{})); diff != "" {
			t.Errorf("%s (-want +got):\n%s", header, diff)
		}
	}
}

func TestAllChallengesOfKnownSchemesAreRead(t *testing.T) {
	bearer := challenge{"bearer", map[string]string{"realm": "x", "service": "s"}}
	basic := challenge{"basic", map[string]string{"realm": "y"}}
	for name, test := range map[string]struct {
		headers []string
		want    []challenge
	}{
		"several headers":        {[]string{`Negotiate`, `Bearer realm="x",service="s"`, `Basic realm="y"`}, []challenge{bearer, basic}},
		"one line":               {[]string{`Basic realm="y", Bearer realm="x",service="s"`}, []challenge{basic, bearer}},
		"one line, no space":     {[]string{`Basic realm=y,Bearer realm=x,service=s`}, []challenge{basic, bearer}},
		"a comma is left out":    {[]string{`Basic realm="y" Bearer realm="x" service="s"`}, []challenge{basic, bearer}},
		"a scheme alone first":   {[]string{`Negotiate, Bearer realm="x", service="s"`}, []challenge{bearer}},
		"a token of 68 signs":    {[]string{`Negotiate YWJj==, Basic realm="y"`}, []challenge{basic}},
		"a scheme in quotes":     {[]string{`Digest realm="a, Basic realm=b", Basic realm="y"`}, []challenge{basic}},
		"nothing":                {nil, nil},
		"empty":                  {[]string{"", " ", ",", "="}, nil},
		"unknown":                {[]string{"Negotiate", `Digest realm="x"`}, nil},
		"parameters of no-one":   {[]string{`realm="x", Basic realm="y"`}, []challenge{basic}},
		"of one, not of another": {[]string{`Negotiate a=b, realm="z"`, `Basic realm="y"`}, []challenge{basic}},
	} {
		got := parseChallenges(http.Header{"Www-Authenticate": test.headers})
		if diff := cmp.Diff(test.want, got, cmp.AllowUnexported(challenge{}), cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func FuzzParseChallenge(f *testing.F) {
	for header := range challenges {
		f.Add(header)
	}
	f.Fuzz(func(t *testing.T, header string) {
		var size int
		for _, got := range parseChallenges(http.Header{"Www-Authenticate": {header}}) {
			if got.scheme != "bearer" && got.scheme != "basic" {
				t.Errorf("%q: scheme %q", header, got.scheme)
			}
			for key, value := range got.params {
				if key == "" || key != strings.ToLower(key) {
					t.Errorf("%q: parameter %q", header, key)
				}
				if value != strings.TrimSpace(value) {
					t.Errorf("%q: value %q", header, value)
				}
				size += len(value)
			}
		}
		if size > len(header) {
			t.Errorf("%q: %d bytes of values out of nothing", header, size)
		}
	})
}
