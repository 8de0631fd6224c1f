package name_test

import (
	"net/url"
	"strings"
	"testing"

	"github.com/larder-registry/larder/upstream/name"
)

func TestHostGrammar(t *testing.T) {
	for host, want := range map[string]bool{
		"docker.io":                      true,
		"Docker.IO":                      true,
		"registry":                       true,
		"registry:5000":                  true,
		"a-b.example.com":                true,
		"10.0.0.5":                       true,
		"10.0.0.5:5000":                  true,
		"[::1]":                          true,
		"[2001:db8::1]:5000":             true,
		"1password.example":              true,
		"":                               false,
		"..":                             false,
		"::1":                            false,
		"[]":                             false,
		"[::1":                           false,
		"[::1]5000":                      false,
		"[fe80::1%eth0]":                 false,
		"[127.0.0.1]":                    false,
		"127.1":                          false,
		"2130706433":                     false,
		"010.0.0.1":                      false,
		"registry:":                      false,
		"registry:0":                     false,
		"registry:05000":                 false,
		"registry:+1":                    false,
		"registry:65536":                 false,
		"registry:http":                  false,
		"a_b.example.com":                false,
		"-a.example.com":                 false,
		"a-.example.com":                 false,
		"a.example.com.":                 false,
		strings.Repeat("a", 63):          true,
		strings.Repeat("a", 64):          false,
		strings.Repeat("a.", 126) + "a":  true,
		strings.Repeat("a.", 127) + "a":  false,
		"*.example.com":                  false,
		"user@example.com":               false,
		"registry.example.com/team":      false,
		"https://registry.example.com":   false,
		"registry.example.com:5000/team": false,
	} {
		got, ok := name.ParseHost(host)
		if ok != want || ok && got != strings.ToLower(host) {
			t.Errorf("ParseHost(%q) = %q, %t; want %t", host, got, ok, want)
		}
	}
}

func TestCutHostTakesAHostAsContainerToolsDo(t *testing.T) {
	for path, want := range map[string][2]string{
		"ghcr.io/a/b":      {"ghcr.io", "a/b"},
		"localhost/a":      {"localhost", "a"},
		"registry:5000/a":  {"registry:5000", "a"},
		"[::1]:5000/a":     {"[::1]:5000", "a"},
		"team/app":         {"", "team/app"},
		"ghcr.io":          {"", "ghcr.io"},
		"localhost.evil/a": {"localhost.evil", "a"},
	} {
		host, rest, ok := name.CutHost(path)
		if host != want[0] || rest != want[1] || ok != (want[0] != "") {
			t.Errorf("CutHost(%q) = %q, %q, %t; want %q", path, host, rest, ok, want)
		}
	}
}

func TestLoopbackHosts(t *testing.T) {
	for host, want := range map[string]bool{
		"localhost":           true,
		"LocalHost":           true,
		"127.0.0.1":           true,
		"127.9.9.9":           true,
		"::1":                 true,
		"::ffff:127.0.0.1":    true,
		"10.0.0.1":            false,
		"localhost.localhost": false,
		"example.com":         false,
		"":                    false,
	} {
		if got := name.IsLoopback(host); got != want {
			t.Errorf("IsLoopback(%q) = %t", host, got)
		}
	}
}

// A valid host must mean the same host in a URL.
func FuzzParseHost(f *testing.F) {
	for _, host := range []string{"docker.io", "Registry:5000", "[::1]:80", "10.0.0.1", "evil.org#.example.com", "a@b", "a%2f", "ſ.example.com", "a..b"} {
		f.Add(host)
	}
	f.Fuzz(func(t *testing.T, s string) {
		host, ok := name.ParseHost(s)
		if !ok {
			return
		}
		u, err := url.Parse("https://" + host + "/v2/")
		if err != nil || u.Host != host || u.User != nil || u.Path != "/v2/" {
			t.Errorf("%q in a URL is %+v, %v", host, u, err)
		}
		if again, ok := name.ParseHost(host); !ok || again != host || host != strings.ToLower(s) {
			t.Errorf("%q parses as %q, and that as %q, %t", s, host, again, ok)
		}
	})
}

func TestClientOfIPv6IsItsNetwork(t *testing.T) {
	for address, want := range map[string]string{
		"10.0.0.7:1":             "10.0.0.7/32",
		"[::ffff:10.0.0.7]:1":    "10.0.0.7/32",
		"[2001:db8:0:1::7]:1":    "2001:db8:0:1::/64",
		"[2001:db8:0:1:9::8]:2":  "2001:db8:0:1::/64",
		"[fe80::1%eth0]:1":       "fe80::/64",
		"[::1]:1":                "::1/128",
		"10.0.0.7":               "",
		"registry.example.com:1": "",
		"pipe":                   "",
	} {
		got, ok := name.Network(address)
		if ok != (want != "") || ok && got.String() != want {
			t.Errorf("%s: %s, %t, want %q", address, got, ok, want)
		}
	}
}
