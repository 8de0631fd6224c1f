package name_test

import (
	"regexp"
	"strings"
	"testing"

	"github.com/larder-registry/larder/upstream/name"
)

func TestHostPatternGrammar(t *testing.T) {
	for s, want := range map[string]bool{
		"*.example.com":             true,
		"*.*.example.com":           true,
		"a*b*c.example.com":         true,
		"*.example.com:5000":        true,
		"*.dkr.ecr.*.amazonaws.com": true,
		"docker.io":                 true,
		"*":                         false,
		"registry.example.*":        false,
		"**.example.com":            false,
		"*.example.com:*":           false,
		"-*.example.com":            false,
		"*.127.1":                   false,
		"[*]":                       false,
	} {
		if got, ok := name.ParseHostPattern(s); ok != want || ok && string(got) != s {
			t.Errorf("ParseHostPattern(%q) = %q, %t", s, got, ok)
		}
	}
	if got, _ := name.ParseHostPattern("*.Example.COM"); got != "*.example.com" {
		t.Errorf("a pattern in upper case is parsed as %q", got)
	}
}

func TestHostPatternsMatchLabelByLabel(t *testing.T) {
	for _, test := range []struct {
		pattern name.HostPattern
		host    string
		want    bool
	}{
		{"one.example.com", "one.example.com", true},
		{"one.example.com", "two.example.com", false},
		{"*.example.com", "eu.example.com", true},
		{"*.example.com", "example.com", false},
		{"*.example.com", "a.eu.example.com", false},
		{"*.example.com", "eu.example.com.evil.org", false},
		{"*.example.com", "eu.example.com:5000", false},
		{"*.example.com:5000", "eu.example.com:5000", true},
		{"*.example.com:5000", "eu.example.com:5001", false},
		{"*.*.example.com", "a.eu.example.com", true},
		{"a*.example.com", "a1.example.com", true},
		{"a*.example.com", "a.example.com", false}, // a star is one character or more
		{"*b.example.com", "ab.example.com", true},
		{"*b.example.com", "b.example.com", false},
		{"a*b*c.example.com", "a1b2c.example.com", true},
		{"a*b*c.example.com", "abc.example.com", false},
		{"*ab*.example.com", "abxab1.example.com", true},
		{"*.dkr.ecr.*.amazonaws.com", "123456789012.dkr.ecr.us-east-1.amazonaws.com", true},
		{"*.dkr.ecr.*.amazonaws.com", "123456789012.dkr.ecr.amazonaws.com", false},
		{"[::1]:5000", "[::1]:5000", true},
		{"*.*.169.254", "169.254.169.254", false}, // an address
		{"*.*.*.254:80", "169.254.169.254:80", false},
		{name.AnyHost, "127.0.0.1:5000", true},
		{name.AnyHost, "a.b.c.example.com", true},
	} {
		if got := test.pattern.Match(test.host); got != test.want {
			t.Errorf("%s matches %s: %t", test.pattern, test.host, got)
		}
	}
}

// Each of these comes before all that follow it.
func TestAccountIsMoreSpecificThanARegion(t *testing.T) {
	order := []name.HostPattern{
		"123456789012.dkr.ecr.ap-southeast-1.amazonaws.com",
		"123456789012.dkr.ecr.*.amazonaws.com",
		"1234*.dkr.ecr.*.amazonaws.com",
		"*.dkr.ecr.ap-southeast-1.amazonaws.com",
		"*.dkr.ecr.ap-*.amazonaws.com",
		"*.dkr.ecr.*.amazonaws.com",
	}
	for i, p := range order {
		for j, q := range order {
			if got := p.MoreSpecific(q); got != (i < j) {
				t.Errorf("%s is more specific than %s: %t", p, q, got)
			}
		}
	}
	if name.HostPattern("a*.example.com").MoreSpecific("*b.example.com") || name.HostPattern("*b.example.com").MoreSpecific("a*.example.com") {
		t.Error("one of two equal patterns is more specific")
	}
}

func TestRepositoryPatternGrammar(t *testing.T) {
	for s, want := range map[string]bool{
		"team/app": true, "team/*": true, "*": true, "*/base/*": true, "te*m/a-*_b.c": true,
		"": false, "/a": false, "a/": false, "a//b": false, "a/**": false, "Team/*": false, "a:v1": false, "a b": false, "a?": false,
	} {
		if got, ok := name.ParseRepositoryPattern(s); ok != want || ok && string(got) != s {
			t.Errorf("ParseRepositoryPattern(%q) = %q, %t", s, got, ok)
		}
	}
}

func TestRepositoryPatternsMatchElementByElement(t *testing.T) {
	for _, test := range []struct {
		pattern    name.RepositoryPattern
		repository string
		want       bool
	}{
		{"team/app", "team/app", true},
		{"team/app", "team/app/b", false},
		{"team/app", "team", false},
		{"team/*", "team/a", true},
		{"team/*", "team/a/b", true},
		{"team/*", "team", false},
		{"team/*", "teams/a", false},
		{"team/*", "other/team/a", false},
		{"*", "team", true},
		{"*", "team/a/b", true},
		{"team/app-*", "team/app-1", true},
		{"team/app-*", "team/app-", true},
		{"team/app-*", "team/app-1/b", false},
		{"*/base", "team/base", true},
		{"*/base", "base", false},
		{"*/base", "team/a/base", false},
		{"*/base/*", "team/base/a/b", true},
		{"team/*-*-x", "team/a-b-x", true},
		{"team/*-*-x", "team/a-x", false},
		{"team/*a*", "team/bab", true},
		{"team/*a*", "team/bbb", false},
		{"te*m", "tem", true},
		{"te*m", "te/m", false},
	} {
		if got := test.pattern.Match(test.repository); got != test.want {
			t.Errorf("%s matches %s: %t", test.pattern, test.repository, got)
		}
	}
}

func TestPatternsOfHostAndRepository(t *testing.T) {
	for s, want := range map[string]bool{
		"docker.io/library/*": true, "*/*": true, "*/team/*": true, "*.example.com/a": true, "registry/a": true,
		"docker.io": false, "docker.io/": false, "*/team//app": false, "/a": false, "**/a": false, "example.*/a": false,
	} {
		p, ok := name.ParsePattern(s)
		if ok != want || ok && p.String() != s || !ok && p != (name.Pattern{}) {
			t.Errorf("ParsePattern(%q) = %v, %t", s, p, ok)
		}
	}
	p, _ := name.ParsePattern("Docker.io/library/*")
	for repository, want := range map[string]bool{"library/busybox": true, "grafana/grafana": false} {
		if got := p.Match("docker.io", repository); got != want {
			t.Errorf("%v matches %s: %t", p, repository, got)
		}
	}
	if p.Match("quay.io", "library/busybox") {
		t.Errorf("%v matches another host", p)
	}
}

func TestImagePatternsCrossSlashes(t *testing.T) {
	const image = "registry.example:5000/team/web/app:v1.2"
	for pattern, want := range map[string]bool{
		"*":                       true,
		image:                     true,
		"*/team/*:v1*":            true,
		"registry.example:5000/*": true,
		"*:v1.?":                  true,
		"*:v[1-3]*":               true,
		"*app*":                   true,
		"":                        false,
		"app":                     false,
		"*/app":                   false,
		"*:v2*":                   false,
		"team/*":                  false,
	} {
		p, err := name.ParseImagePattern(pattern)
		if err != nil || p.Match(image) != want {
			t.Errorf("%q matches: %t, %v", pattern, !want, err)
		}
	}
	if _, err := name.ParseImagePattern("*["); err == nil {
		t.Error("a pattern with an open bracket is accepted")
	}
}

func TestImagePatternsAreToldFromNames(t *testing.T) {
	for s, want := range map[string]bool{
		"busybox": false, "docker.io/library/busybox:1.36": false, "[::1]:5000/a:v1": false,
		"*": true, "a?": true, "ghcr.io/a:v[1-3]": true, `a\b`: true, "*[": true,
	} {
		if got := name.IsImagePattern(s); got != want {
			t.Errorf("IsImagePattern(%q) = %t", s, got)
		}
	}
}

func TestPatternsThatCanMatchATag(t *testing.T) {
	for p, want := range map[name.ImagePattern]bool{
		"docker.io/library/busybox:1.36": true, "*/team/*:v1*": true, "*": true, "a/b:v?": true,
		"busybox:1.36": false, "docker.io/library/busybox": false, "a/b@" + dgst: false, "*/team/* *": false, "": false,
	} {
		if got := p.MatchesTags(); got != want {
			t.Errorf("%q: %t", p, got)
		}
	}
}

func FuzzGlob(f *testing.F) {
	f.Add("a*b*c", "a1b2c")
	f.Add("*ab*", "aabb")
	f.Add("v1.*", "v12")
	f.Fuzz(func(t *testing.T, pattern, s string) {
		expression := "(?s)^" + strings.ReplaceAll(regexp.QuoteMeta(pattern), `\*`, ".*") + "$"
		re, err := regexp.Compile(expression)
		if err != nil || strings.ToValidUTF8(pattern+s, "") != pattern+s {
			t.Skip()
		}
		if got := name.Glob(pattern, s); got != re.MatchString(s) {
			t.Errorf("Glob(%q, %q) = %t", pattern, s, got)
		}
	})
}

// A pattern matches valid hosts only by its literal labels, a pattern of ECR only the hosts
// of ECR, and a pattern is never more specific than itself.
func FuzzHostPattern(f *testing.F) {
	f.Add("*.dkr.ecr.*.amazonaws.com", "123456789012.dkr.ecr.us-east-1.amazonaws.com")
	f.Add("*.example.com:5000", "evil.org.example.com:5000")
	f.Add("a*b*c.example.com", "A1b2c.example.com")
	f.Fuzz(func(t *testing.T, pattern, s string) {
		p, ok := name.ParseHostPattern(pattern)
		if !ok {
			return
		}
		if again, ok := name.ParseHostPattern(string(p)); !ok || again != p || p.MoreSpecific(p) {
			t.Errorf("%q is parsed as %q, and that as %q, %t", pattern, p, again, ok)
		}
		host, ok := name.ParseHost(s)
		if !ok {
			return
		}
		form := regexp.MustCompile("^" + strings.ReplaceAll(regexp.QuoteMeta(string(p)), `\*`, "[^.:]+") + "$")
		isAddress := strings.Trim(host[strings.LastIndexByte(host, '.')+1:], "0123456789:") == "" || host[0] == '['
		_, forECR := p.ECR()
		_, isECR := name.ParseECR(host)
		want := form.MatchString(host) && (!p.HasStar() || !isAddress && (!forECR || isECR))
		if got := p.Match(host); got != want {
			t.Errorf("%q matches %q: %t", p, host, got)
		}
	})
}

func TestPatternsThatCanMatchImagesOfAHost(t *testing.T) {
	for _, c := range []struct {
		pattern name.ImagePattern
		hosts   name.HostPattern
		want    bool
	}{
		{"docker.io/*", "docker.io", true},
		{"docker.io/*", "public.ecr.aws", false},
		{"*/team/*", "public.ecr.aws", true},
		{"*:v*", "public.ecr.aws", true},
		{"registry.example.com/*", "*.example.com", true},
		{"docker.io/library/*", "*.example.com", false},
	} {
		if got := c.pattern.MayMatch(c.hosts); got != c.want {
			t.Errorf("%s, %s: %t", c.pattern, c.hosts, got)
		}
	}
}
