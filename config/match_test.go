package config

import (
	"slices"
	"testing"
)

func TestMatchPrefersTheMostSpecificEntry(t *testing.T) {
	c := &Config{Upstreams: []Upstream{
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
		{"[::1]:5000", "[::1]:5000", "http://[::1]:5000"},
		{"127.0.0.1:5000", "127.0.0.1:5000", "http://127.0.0.1:5000"},
		{"127.0.0.1", "", ""},
		{"", "", ""},
	} {
		u, ok := c.Match(test.host)
		if ok != (test.entry != "") || u.Host != test.entry || u.Endpoint != test.endpoint {
			t.Errorf("Match(%q) = %+v, %t; want %q at %q", test.host, u, ok, test.entry, test.endpoint)
		}
	}
}

// Each of these matches the host, and comes before all that follow it, wherever
// they stand in the file.
func TestMatchPrefersAnAccountToARegion(t *testing.T) {
	order := []string{
		"123456789012.dkr.ecr.ap-southeast-1.amazonaws.com",
		"123456789012.dkr.ecr.*.amazonaws.com",
		"1234*.dkr.ecr.*.amazonaws.com",
		"*.dkr.ecr.ap-southeast-1.amazonaws.com",
		"*.dkr.ecr.ap-*.amazonaws.com",
		"*.dkr.ecr.*.amazonaws.com",
	}
	for i, want := range order {
		c := &Config{}
		for _, host := range order[i:] {
			c.Upstreams = append(c.Upstreams, Upstream{Host: host})
		}
		for range 2 {
			if u, ok := c.Match(order[0]); !ok || u.Host != want {
				t.Errorf("of %v: %q, want %q", c.Upstreams, u.Host, want)
			}
			slices.Reverse(c.Upstreams)
		}
	}
}

// What a client calls a host becomes the host of a URL. None of these may be
// one that means another host there.
func TestMatchRefusesWhatIsNotAHost(t *testing.T) {
	c := &Config{Upstreams: []Upstream{{Host: "*.dkr.ecr.*.amazonaws.com"}, {Host: "*.example.com"}}}
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

func TestPatternsDoNotMatchAddresses(t *testing.T) {
	c := &Config{Upstreams: []Upstream{{Host: "*.*.169.254"}, {Host: "*.*.*.254:80"}}}
	for _, host := range []string{"169.254.169.254", "169.254.169.254:80"} {
		if u, ok := c.Match(host); ok {
			t.Errorf("Match(%q) = %+v, want none", host, u)
		}
	}
}

func TestAllows(t *testing.T) {
	for _, test := range []struct {
		pattern, repository string
		want                bool
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
		u := Upstream{Allow: []string{"else", test.pattern}}
		if got := u.Allows(test.repository); got != test.want {
			t.Errorf("%q allows %q: %t, want %t", test.pattern, test.repository, got, test.want)
		}
	}
}

func TestAllowsEveryRepositoryWithoutPatterns(t *testing.T) {
	if !(Upstream{}).Allows("any/repository") {
		t.Error("a repository is refused although nothing is said about repositories")
	}
}
