// The tests are inside the package to check each class of address without
// connecting to it.
package guard

import (
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/larder-registry/larder/upstream/guard/guardtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func mustURL(t *testing.T, raw string) *url.URL {
	t.Helper()
	u, err := url.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func TestAddressesHaveTheirClass(t *testing.T) {
	for text, want := range map[string]class{
		"8.8.8.8":                  elsewhere,
		"10.1.2.3":                 elsewhere,
		"172.16.0.1":               elsewhere,
		"192.168.1.1":              elsewhere,
		"100.64.0.1":               elsewhere,
		"2600:1f18::1":             elsewhere,
		"fd12:3456::1":             elsewhere,
		"fd00:ec1::254":            elsewhere,
		"::ffff:10.1.2.3":          elsewhere,
		"127.0.0.1":                loopback,
		"127.255.255.254":          loopback,
		"::1":                      loopback,
		"::ffff:127.0.0.1":         loopback,
		"::1%lo":                   loopback,
		"169.254.169.254":          linkLocal,
		"169.254.170.2":            linkLocal,
		"::ffff:169.254.169.254":   linkLocal,
		"fe80::1":                  linkLocal,
		"fe80::1%eth0":             linkLocal,
		"fd00:ec2::254":            linkLocal,
		"fd00:ec2::23":             linkLocal,
		"fd00:ec2::254%eth0":       linkLocal,
		"fd20:ce::254":             linkLocal, // Google Cloud
		"fd20:ce::253":             elsewhere,
		"fd00:c1::a9fe:a9fe":       linkLocal, // Oracle Cloud
		"fd00:42::42":              linkLocal, // Scaleway
		"100.100.100.200":          linkLocal, // Alibaba Cloud
		"::ffff:100.100.100.200":   linkLocal,
		"100.100.100.201":          elsewhere,
		"168.63.129.16":            linkLocal, // Azure
		"168.63.129.17":            elsewhere,
		"169.254.171.1":            elsewhere, // VPC Lattice
		"::ffff:169.254.171.255":   elsewhere,
		"169.254.172.1":            linkLocal,
		"fd00:ec2:80::1":           elsewhere,
		"fd00:ec2:80:1::1":         linkLocal,
		"64:ff9b::a9fe:a9fe":       linkLocal, // NAT64
		"64:ff9b::169.254.171.1":   elsewhere,
		"64:ff9b::7f00:1":          loopback,
		"64:ff9b::10.1.2.3":        elsewhere,
		"64:ff9b::":                unspecified,
		"64:ff9b:1::a9fe:a9fe":     linkLocal,
		"64:ff9b:1:2:3:4:7f00:1":   loopback,
		"2002:a9fe:a9fe::1":        linkLocal, // 6to4
		"2002:7f00:1::":            loopback,
		"2002:a01:203::1":          elsewhere,
		"::169.254.169.254":        linkLocal, // IPv4-compatible
		"::127.0.0.1":              loopback,
		"::ffff:0:169.254.169.254": linkLocal, // IPv4-translated
		"0.0.0.0":                  unspecified,
		"::":                       unspecified,
		"::%eth0":                  unspecified,
		"::ffff:0.0.0.0":           unspecified,
		"255.255.255.255":          unspecified,
		"::ffff:255.255.255.255":   unspecified,
		"224.0.0.251":              unspecified,
		"ff02::1":                  unspecified,
		"ff02::1%eth0":             unspecified,
		"::ffff:239.255.255.250":   unspecified,
		"fe80::a9fe:a9fe%enp0s31":  linkLocal,
	} {
		if got := classify(netip.MustParseAddr(text)); got != want {
			t.Errorf("%s is of class %d, want %d", text, got, want)
		}
		if got := classifyHost(text); got != want {
			t.Errorf("as a host, %s is of class %d, want %d", text, got, want)
		}
	}
	if got := classify(netip.Addr{}); got != unspecified {
		t.Errorf("no address is of class %d, want %d", got, unspecified)
	}
}

func TestHostNamesHaveTheirClass(t *testing.T) {
	for host, want := range map[string]class{
		"registry-1.docker.io":      elsewhere,
		"localhost.example.com":     elsewhere,
		"notlocalhost":              elsewhere,
		"127.0.0.1.nip.io":          elsewhere, // judged when it is dialled
		"localhost":                 loopback,
		"LocalHost":                 loopback,
		"localhost.":                loopback,
		"registry.localhost":        loopback,
		"registry.localhost.":       loopback,
		"127.0.0.1.":                loopback,
		"[::1]":                     loopback,
		"169.254.169.254.":          linkLocal,
		"Metadata.Google.Internal.": linkLocal,
		"registry.google.internal":  elsewhere,
	} {
		if got := classifyHost(host); got != want {
			t.Errorf("%q is of class %d, want %d", host, got, want)
		}
	}
}

// allowedClasses says which classes of endpoint may lead to an address.
var allowedClasses = map[string][]class{
	"10.1.2.3:443":              {elsewhere, loopback, linkLocal, unspecified},
	"[2600:1f18::1]:443":        {elsewhere, loopback, linkLocal, unspecified},
	"127.0.0.1:5000":            {loopback},
	"[::1]:5000":                {loopback},
	"[::ffff:127.0.0.1]:5000":   {loopback},
	"169.254.169.254:80":        {linkLocal},
	"[fe80::1%eth0]:80":         {linkLocal},
	"[fd00:ec2::254]:80":        {linkLocal},
	"[::ffff:169.254.170.2]:80": {linkLocal},
	"[64:ff9b::a9fe:a9fe]:80":   {linkLocal},
	"[2002:7f00:1::1]:80":       {loopback},
	"168.63.129.16:80":          {linkLocal},
	"169.254.171.7:443":         {elsewhere, loopback, linkLocal, unspecified},
	"0.0.0.0:80":                nil,
	"[::]:80":                   nil,
	"224.0.0.1:80":              nil,
}

func TestAddressIsDialledIfTheEndpointIsOfItsClass(t *testing.T) {
	for address, classes := range allowedClasses {
		for allowed := elsewhere; allowed <= unspecified; allowed++ {
			g := newGuard(allowed, nil, nil)
			err := g.control(t.Context(), "tcp", address, nil)
			wantRefused(t, address, allowed, classes, err)
			to := &url.URL{Scheme: "http", Host: address}
			err = g.check("a redirect", &url.URL{Scheme: "http", Host: "registry.test"}, to)
			wantRefused(t, to.String(), allowed, classes, err)
		}
	}
}

func wantRefused(t *testing.T, target string, allowed class, classes []class, err error) {
	t.Helper()
	want := true
	for _, c := range classes {
		want = want && c != allowed
	}
	var refused *RefusedError
	if got := errors.As(err, &refused); got != want || !got && err != nil {
		t.Errorf("%s for an endpoint of class %d: %v; refused must be %t", target, allowed, err, want)
	}
}

func TestForbiddenURLIsRefused(t *testing.T) {
	for _, test := range []struct {
		from, to string
		refused  bool
	}{
		{"https://registry.test", "https://cdn.test/x", false},
		{"http://registry.test", "https://cdn.test/x", false},
		{"http://registry.test", "http://cdn.test/x", false},
		{"https://registry.test", "http://registry.test/x", true},
		{"https://registry.test", "https://user:pw@cdn.test/x", true},
		{"https://registry.test", "https://user@cdn.test/x", true},
		{"https://registry.test", "https:///x", true},
		{"https://registry.test", "https:opaque", true},
		{"http://registry.test", "ftp://cdn.test/x", true},
		{"http://registry.test", "file:///etc/passwd", true},
		{"http://registry.test", "unix:///run/x.sock", true},
		{"http://registry.test", "//cdn.test/x", true},
		{"http://registry.test", "http://LOCALHOST:80/x", true},
		{"http://registry.test", "http://x.localhost./x", true},
		{"http://registry.test", "http://[::ffff:7f00:1]/x", true},
	} {
		from, to := mustURL(t, test.from), mustURL(t, test.to)
		err := newGuard(elsewhere, nil, nil).check("a redirect", from, to)
		if (err != nil) != test.refused {
			t.Errorf("from %s to %s: %v; refused must be %t", test.from, test.to, err, test.refused)
		}
		if err != nil && (strings.Contains(err.Error(), "pw") || strings.Contains(err.Error(), "/x is")) {
			t.Errorf("the refusal shows too much: %v", err)
		}
	}
}

func TestNameThatResolvesToLoopbackIsNotDialled(t *testing.T) {
	bell := guardtest.NewDoorbell(t)
	g := newGuard(elsewhere, nil, guardtest.Resolver(t, [4]byte{127, 0, 0, 1}))
	conn, err := g.dial(t.Context(), "tcp", net.JoinHostPort("rebound.test", bell.Port(t)))
	if err == nil {
		conn.Close()
	}
	var refused *RefusedError
	if !errors.As(err, &refused) {
		t.Errorf("dialling gave %v, want a refusal", err)
	}
	bell.WantNobody(t)
}

func TestLoopbackEndpointMayLeadToLoopback(t *testing.T) {
	bell := guardtest.NewDoorbell(t)
	conn, err := newGuard(loopback, nil, nil).dial(t.Context(), "tcp", bell.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	bell.Wait()
}

// proxyVariables are all that proxyAddresses looks at.
var proxyVariables = []string{"HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy", "REQUEST_METHOD"}

func TestProxiesOfTheEnvironmentAreKnown(t *testing.T) {
	for value, want := range map[string]string{
		"":                           "",
		"http://proxy.test:3128":     "proxy.test:3128",
		"http://proxy.test":          "proxy.test:80",
		"https://proxy.test":         "proxy.test:443",
		"socks5://proxy.test":        "proxy.test:1080",
		"socks5h://proxy.test":       "proxy.test:1080",
		"proxy.test:3128":            "proxy.test:3128",
		"http://user:pw@[::1]:3128/": "[::1]:3128",
		"://":                        "",
	} {
		for _, name := range []string{"HTTP_PROXY", "HTTPS_PROXY"} {
			for _, other := range proxyVariables {
				t.Setenv(other, "")
			}
			t.Setenv(name, value)
			got := proxyAddresses()
			if want == "" && len(got) != 0 || want != "" && (len(got) != 1 || !got[want]) {
				t.Errorf("%s=%s: %v, want %q", name, value, got, want)
			}
		}
	}
}

func TestMetadataIsNeverAskedThroughAProxy(t *testing.T) {
	// http.ProxyFromEnvironment reads the environment once, so a process of its own looks.
	if os.Getenv("LARDER_TEST_PROXY") != "" {
		for host, want := range map[string]bool{
			"169.254.169.254": false, "169.254.170.23": false, "169.254.170.2:80": false,
			"[fd00:ec2::254]": false, "[fd00:ec2::23]:80": false, "[fe80::1%25eth0]": false,
			"registry.test": true, "10.1.2.3": true, "[fd12::1]": true,
		} {
			u, err := Proxy(&http.Request{URL: mustURL(t, "http://"+host+"/")})
			if err != nil || (u != nil) != want {
				t.Errorf("%s: through %v, %v; want a proxy: %t", host, u, err, want)
			}
		}
		return
	}
	self := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$")
	self.Env = append(os.Environ(), "LARDER_TEST_PROXY=1", "HTTP_PROXY=http://proxy.test:3128", "NO_PROXY=", "no_proxy=", "http_proxy=")
	if out, err := self.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

func TestProxyMayBeAnywhere(t *testing.T) {
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = w.Write([]byte("through the proxy to " + r.URL.Host))
	}))
	defer proxy.Close()
	proxyURL := mustURL(t, proxy.URL)
	t.Setenv("HTTP_PROXY", proxy.URL)
	trs := NewTransports(Options{})
	t.Cleanup(trs.CloseIdle)
	tr := trs.For(mustURL(t, "http://registry.test"))
	tr.Proxy = http.ProxyURL(proxyURL)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://registry.test/v2/", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := tr.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if got, err := io.ReadAll(resp.Body); err != nil || string(got) != "through the proxy to registry.test" {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestConnectionsResumeTLSSessions(t *testing.T) {
	var mu sync.Mutex // guards resumed
	var resumed []bool
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		resumed = append(resumed, r.TLS.DidResume)
	}))
	server.Config.SetKeepAlivesEnabled(false)
	server.StartTLS()
	defer server.Close()
	all := NewTransports(Options{})
	defer all.CloseIdle()
	tr := all.For(mustURL(t, server.URL))
	tr.TLSClientConfig.RootCAs = x509.NewCertPool()
	tr.TLSClientConfig.RootCAs.AddCert(server.Certificate())
	for range 3 {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := tr.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		if err := resp.Body.Close(); err != nil {
			t.Error(err)
		}
		if resp.Proto != "HTTP/1.1" {
			t.Errorf("it was asked by %s", resp.Proto)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if want := []bool{false, true, true}; !slices.Equal(resumed, want) {
		t.Errorf("sessions were resumed: %v, want %v", resumed, want)
	}
}

func TestOriginIsSchemeHostAndPort(t *testing.T) {
	for _, test := range []struct {
		a, b string
		same bool
	}{
		{"https://registry.test/v2/", "https://registry.test:443/x?y", true},
		{"http://registry.test:80", "http://Registry.test", true},
		{"https://[::1]:443", "https://[::1]", true},
		{"https://registry.test:5000", "https://registry.test:5000", true},
		{"https://registry.test", "http://registry.test", false},
		{"https://registry.test", "http://registry.test:443", false},
		{"https://registry.test", "https://registry.test:80", false},
		{"https://registry.test:5000", "https://registry.test", false},
		{"https://registry.test", "https://registry.test.", false},
		{"https://registry.test", "https://evil.test", false},
	} {
		if got := SameOrigin(mustURL(t, test.a), mustURL(t, test.b)); got != test.same {
			t.Errorf("%s and %s are of one origin: %t", test.a, test.b, got)
		}
	}
}
