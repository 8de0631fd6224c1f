package name_test

import (
	"regexp"
	"strings"
	"testing"

	"github.com/distribution/reference"

	"github.com/larder-registry/larder/upstream/name"
)

func TestRepositoryGrammar(t *testing.T) {
	for repository, want := range map[string]bool{
		"busybox":                true,
		"team/app":               true,
		"a/b/c/d":                true,
		"a.b_c__d---e":           true,
		"0/1":                    true,
		"":                       false,
		"/":                      false,
		"a/":                     false,
		"/a":                     false,
		"a//b":                   false,
		"..":                     false,
		"a/../b":                 false,
		"Team/app":               false,
		"-a":                     false,
		"a-":                     false,
		"a..b":                   false,
		"a___b":                  false,
		"a-_b":                   false,
		"a b":                    false,
		"a%2fb":                  false,
		"a\x00b":                 false,
		"é":                      false,
		"a:v1":                   false,
		strings.Repeat("a", 255): true,
		strings.Repeat("a", 256): false,
	} {
		if got := name.IsRepository(repository); got != want {
			t.Errorf("IsRepository(%q) = %t", repository, got)
		}
	}
}

func TestTagGrammar(t *testing.T) {
	for tag, want := range map[string]bool{
		"latest":                 true,
		"v1.2-rc_3":              true,
		"_T.-x":                  true,
		strings.Repeat("T", 128): true,
		strings.Repeat("T", 129): false,
		"":                       false,
		".v1":                    false,
		"-v1":                    false,
		"..":                     false,
		"v 1":                    false,
		"v+1":                    false,
		"v1/2":                   false,
		"a:b":                    false,
	} {
		if got := name.IsTag(tag); got != want {
			t.Errorf("IsTag(%q) = %t", tag, got)
		}
	}
}

// The hand-written parsers must agree with distribution/reference.
func FuzzRepositoryAndTag(f *testing.F) {
	for _, s := range []string{"team/app", "a.b_c__d---e/f", "a..b", "A", "_T.-x", "a/../b", strings.Repeat("a", 256)} {
		f.Add(s)
	}
	tag := regexp.MustCompile("^(?:" + reference.TagRegexp.String() + ")$")
	f.Fuzz(func(t *testing.T, s string) {
		if want := tag.MatchString(s) && !strings.HasSuffix(s, "\n"); name.IsTag(s) != want {
			t.Errorf("IsTag(%q) = %t", s, !want)
		}
		named, err := reference.WithName("example.com/" + s)
		if want := err == nil && reference.Path(named) == s; name.IsRepository(s) != want {
			t.Errorf("IsRepository(%q) = %t", s, !want)
		}
	})
}

func TestParsersOfRequestsDoNotAllocate(t *testing.T) {
	patterns := name.ECRHosts()
	n := testing.AllocsPerRun(100, func() {
		host, _ := name.ParseHost("123456789012.dkr.ecr.us-east-1.amazonaws.com")
		_ = name.IsRepository("team/service/app")
		_ = name.IsTag("v1.2.3")
		for _, p := range patterns {
			_ = p.Match(host) && p.MoreSpecific(patterns[0])
		}
		_ = name.RepositoryPattern("team/*/a*").Match("team/service/app")
	})
	if n != 0 {
		t.Errorf("%g allocations", n)
	}
}
