package config

import (
	"math"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Whatever the file says, there is a valid configuration or there are mistakes
// that fit on a line each.
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
		t.Fatalf("error is %T %v, want Mistakes", err, err)
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
	if c.Cache.MaxSize.Percent == 0 && c.Cache.MaxSize.Bytes < leastMaxSize || c.Cache.LowWater <= 0 || c.Cache.LowWater > 1 {
		t.Errorf("the bounds of the cache %+v are not valid", c.Cache)
	}
	if _, ok := c.Match(c.DefaultUpstream); c.DefaultUpstream != "" && !ok {
		t.Errorf("the default upstream %q is not served", c.DefaultUpstream)
	}
	hosts := make(map[string]bool)
	for _, u := range c.Upstreams {
		if hosts[u.Host] || u.Timeout <= 0 || (u.Endpoint == "") != isPattern(u.Host) {
			t.Errorf("upstream %+v is not valid", u)
		}
		hosts[u.Host] = true
		if got, ok := c.Match(u.Host); !isPattern(u.Host) && (!ok || got.Host != u.Host) {
			t.Errorf("Match(%q) = %+v, %t", u.Host, got, ok)
		}
	}
}

// Whatever text is taken for an amount is a valid one.
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

// checkAmount checks that an amount is valid, and the same again when it is
// written and read.
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

// Whatever a client calls a host, what is matched is the host of the URL that
// is made from it.
func FuzzMatch(f *testing.F) {
	f.Add("*.dkr.ecr.*.amazonaws.com", "123456789012.dkr.ecr.us-east-1.amazonaws.com")
	f.Add("*.example.com:5000", "evil.org#.example.com:5000")
	f.Add("a*b*c.example.com", "A1b2c.example.com")
	f.Fuzz(func(t *testing.T, pattern, host string) {
		if !isHost(pattern) && !isHostPattern(pattern) {
			t.Skip()
		}
		c := &Config{Upstreams: []Upstream{{Host: strings.ToLower(pattern)}}}
		if _, ok := c.Match(host); !ok {
			return
		}
		u, err := url.Parse("https://" + host + "/v2/")
		if err != nil || u.Host != host || u.User != nil || u.Path != "/v2/" {
			t.Errorf("Match(%q) with %q, which as a URL is %+v, %v", host, pattern, u, err)
		}
	})
}
