package config_test

import (
	"slices"
	"testing"

	"github.com/larder-registry/larder/config"
	"github.com/larder-registry/larder/upstream/name"
)

func TestMatchPrefersTheMostSpecificEntry(t *testing.T) {
	c := &config.Config{Upstreams: []config.Upstream{
		{Host: "*.*.example.com"},
		{Host: "*.example.com"},
		{Host: "*.eu.example.com"},
		{Host: "a*.eu.example.com"},
		{Host: "*b.eu.example.com"},
		{Host: "one.eu.example.com", Endpoint: "https://elsewhere.example.org"},
		{Host: "*.example.com:5000"},
		{Host: "*.dkr.ecr.*.amazonaws.com"},
		{Host: "*.*.*.1x"},
		{Host: "[::1]:5000", Endpoint: "http://[::1]:5000"},
		{Host: "127.0.0.1:5000", Endpoint: "http://127.0.0.1:5000"},
	}}
	for _, test := range []struct{ host, entry, endpoint string }{
		{"one.eu.example.com", "one.eu.example.com", "https://elsewhere.example.org"},
		{"ONE.eu.example.com", "one.eu.example.com", "https://elsewhere.example.org"},
		{"two.eu.example.com", "*.eu.example.com", "https://two.eu.example.com"},
		{"Two.EU.Example.com", "*.eu.example.com", "https://two.eu.example.com"},
		{"a1.eu.example.com", "a*.eu.example.com", "https://a1.eu.example.com"},
		{"a.eu.example.com", "*.eu.example.com", "https://a.eu.example.com"},      // * is at least one character
		{"a1b.eu.example.com", "a*.eu.example.com", "https://a1b.eu.example.com"}, // a tie: the earlier
		{"two.us.example.com", "*.*.example.com", "https://two.us.example.com"},
		{"eu.example.com", "*.example.com", "https://eu.example.com"},
		{"eu.example.com:5000", "*.example.com:5000", "https://eu.example.com:5000"},
		{"eu.example.com:5001", "", ""},
		{"example.com", "", ""},
		{"a.b.c.example.com", "", ""},
		{"eu.example.com.evil.org", "", ""},
		{"123456789012.dkr.ecr.us-east-1.amazonaws.com", "*.dkr.ecr.*.amazonaws.com", "https://123456789012.dkr.ecr.us-east-1.amazonaws.com"},
		{"123456789012.dkr.ecr.amazonaws.com", "", ""},
		{"123456789012.dkr.ecr.us-east-1.amazonaws.com:443", "*.dkr.ecr.*.amazonaws.com", "https://123456789012.dkr.ecr.us-east-1.amazonaws.com"},
		{"123456789012.dkr.ecr.s3.amazonaws.com", "", ""}, // a bucket that anybody may create
		{"evil.dkr.ecr.us-east-1.amazonaws.com", "", ""},
		{"two.us.example.com:443", "*.*.example.com", "https://two.us.example.com"},
		{"[::1]:5000", "[::1]:5000", "http://[::1]:5000"},
		{"127.0.0.1:5000", "127.0.0.1:5000", "http://127.0.0.1:5000"},
		{"127.0.0.1", "", ""},
		{"", "", ""},
	} {
		u, ok := c.Match(test.host)
		if ok != (test.entry != "") || string(u.Host) != test.entry || u.Endpoint != test.endpoint {
			t.Errorf("Match(%q) = %+v, %t; want %q at %q", test.host, u, ok, test.entry, test.endpoint)
		}
	}
}

func TestMatchDoesNotDependOnTheOrderOfUpstreams(t *testing.T) {
	const host = "123456789012.dkr.ecr.ap-southeast-1.amazonaws.com"
	c := &config.Config{Upstreams: []config.Upstream{
		{Host: "*.dkr.ecr.*.amazonaws.com"},
		{Host: "123456789012.dkr.ecr.*.amazonaws.com"},
		{Host: "*.dkr.ecr.ap-southeast-1.amazonaws.com"},
	}}
	for range 2 {
		if u, ok := c.Match(host); !ok || u.Host != "123456789012.dkr.ecr.*.amazonaws.com" {
			t.Errorf("of %v: %q", c.Upstreams, u.Host)
		}
		slices.Reverse(c.Upstreams)
	}
}

// A client's host becomes the host of a URL. None of these may be accepted: as a
// part of a URL they would mean another host.
func TestMatchRefusesWhatIsNotAHost(t *testing.T) {
	c := &config.Config{Upstreams: []config.Upstream{{Host: "*.dkr.ecr.*.amazonaws.com"}, {Host: "*.example.com"}}}
	for _, host := range []string{
		"*.example.com",
		"evil.org/.example.com",
		"evil.org#.example.com",
		"evil#.example.com",
		"evil?.example.com",
		"evil@a.example.com",
		"user:pass@a.example.com",
		"evil\\.example.com",
		"a%2f.example.com",
		"a\x00.example.com",
		"a .example.com",
		"a.example.com.",
		".example.com",
		"ſ.example.com",
		"\u212a.example.com", // lower case of this is an ASCII k
		"a.example.com:",
		"a.example.com:443:443",
		"169.254.169.254#.dkr.ecr.x.amazonaws.com",
	} {
		if u, ok := c.Match(host); ok {
			t.Errorf("Match(%q) = %+v, want none", host, u)
		}
	}
}

func TestAllowedRepositoriesMatchOneOfThePatterns(t *testing.T) {
	u := config.Upstream{Allow: []name.RepositoryPattern{"base", "team/*"}}
	for repository, want := range map[string]bool{"base": true, "team/a/b": true, "other/a": false, "team": false} {
		if got := u.Allows(repository); got != want {
			t.Errorf("%s is allowed: %t", repository, got)
		}
	}
}

func TestAllowsEveryRepositoryWithoutPatterns(t *testing.T) {
	if !new(config.Upstream).Allows("any/repository") {
		t.Error("a repository is refused without any patterns")
	}
}
