// These tests decode bytes without a file, and parse amounts and role ARNs directly.

package config

import (
	"math"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/larder-registry/larder/upstream/name"
)

// Every file is a valid configuration, or has mistakes that each fit on a line.
func FuzzParse(f *testing.F) {
	seeds, err := filepath.Glob(filepath.Join("testdata", "mistakes", "*.yaml"))
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range append(seeds, filepath.Join("testdata", "full.yaml"), filepath.Join("testdata", "node.yaml")) {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add([]byte("upstreams: &a\n  - *a\n"))
	f.Add([]byte("*a : &a x\n<<: *a\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		const file = "/etc/larder/larder.yaml"
		l := newLoader(file)
		c, err := l.finish(l.parse(data))
		if err != nil {
			checkMistakes(t, err, file)
			return
		}
		checkConfig(t, c)
	})
}

func checkMistakes(t *testing.T, err error, file string) {
	t.Helper()
	mistakes, ok := err.(Mistakes) //nolint:errorlint // it is promised to be exactly this
	if !ok || len(mistakes) == 0 {
		t.Fatalf("the error is %T %v, want Mistakes", err, err)
	}
	for _, m := range mistakes {
		if m.File != file || m.Line < 1 || m.Problem == "" || strings.ContainsAny(m.String(), "\r\n") {
			t.Errorf("mistake %q has no file, no line, no problem or several lines", m)
		}
	}
}

func checkConfig(t *testing.T, c *Config) {
	t.Helper()
	checkAmount(t, c.Cache.MaxSize)
	checkAmount(t, c.Cache.MinFree)
	if c.Cache.MaxSize.Percent == 0 && c.Cache.MaxSize.Bytes < minMaxSize || c.Cache.LowWater <= 0 || c.Cache.LowWater > 1 {
		t.Errorf("the bounds of the cache %+v are not valid", c.Cache)
	}
	if _, ok := c.Match(c.DefaultUpstream); c.DefaultUpstream != "" && !ok {
		t.Errorf("the default upstream %q is not served", c.DefaultUpstream)
	}
	hosts := make(map[name.HostPattern]bool)
	for _, u := range c.Upstreams {
		if hosts[u.Host] || u.Timeout <= 0 || (u.Endpoint == "") != u.Host.HasStar() {
			t.Errorf("upstream %+v is not valid", u)
		}
		hosts[u.Host] = true
		if got, ok := c.Match(string(u.Host)); !u.Host.HasStar() && (!ok || got.Host != u.Host) {
			t.Errorf("Match(%q) = %+v, %t", u.Host, got, ok)
		}
	}
}

// A text that parses as an amount is a valid one.
func FuzzAmount(f *testing.F) {
	for _, s := range []string{"50GiB", "1.5 gib", "500MB", "80%", "0.1%", "0", "50 gigs", "1,5GiB", "9223372036854775807", "8EiB", "1e3", "-1%"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if a, err := parseAmount(s); err == nil {
			checkAmount(t, a)
		}
	})
}

// checkAmount checks that an amount is valid, and that it is the same after printing
// and parsing.
func checkAmount(t *testing.T, a Amount) {
	t.Helper()
	if a.Bytes < 0 || a.Percent < 0 || a.Percent > 100 || a.Bytes > 0 && a.Percent > 0 {
		t.Errorf("amount %#v is not valid", a)
	}
	if again, err := parseAmount(a.String()); err != nil || again != a {
		t.Errorf("amount %#v is written as %s and read as %#v, %v", a, a, again, err)
	}
	if part := a.Of(math.MaxInt64); part < 0 || a.Percent == 0 && part != a.Bytes {
		t.Errorf("amount %#v is %d of the largest file system", a, part)
	}
}

// The form of role ARNs in the IAM API reference as a regular expression. It takes a
// millisecond to compile.
func FuzzRoleARN(f *testing.F) {
	form := regexp.MustCompile(`^arn:aws(-[a-z]+)*:iam::[0-9]{12}:role/([!-~]{1,510}/)?[\w+=,.@-]{1,64}$`)
	for _, s := range []string{
		"arn:aws:iam::123456789012:role/pull", "arn:aws-us-gov:iam::123456789012:role/team/a:b/puller", "arn:aws-:iam::123456789012:role/pull",
		"arn:awsx:iam::123456789012:role/pull", "arn:aws:iam::123456789012:role//pull", "arn:aws:iam::12345678901:role/pull",
		"arn:aws:iam::123456789012:user/pull", "arn:aws:iam::123456789012:role/", "arn:aws:iam::123456789012:role/" + strings.Repeat("a", 65),
		"arn:aws:iam::123456789012:role/" + strings.Repeat("a", 510) + "/b", "arn:aws:iam::123456789012:role/" + strings.Repeat("a", 511) + "/b",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if got := isRoleARN(s); got != form.MatchString(s) {
			t.Errorf("isRoleARN(%q) = %t", s, got)
		}
	})
}
