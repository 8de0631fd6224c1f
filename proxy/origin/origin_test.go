package origin_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"

	"github.com/larder-registry/larder/proxy/origin"
)

// request is a request with a Host, on a connection to an address of this machine.
func request(host, local string) *http.Request {
	r := httptest.NewRequest(http.MethodGet, "/v2/", http.NoBody)
	r.Host = host
	addr := net.TCPAddrFromAddrPort(netip.MustParseAddrPort(local))
	return r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, addr))
}

func TestLoopbackListenerAnswersItsOwnHostsOnly(t *testing.T) {
	loopback := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 5000}
	hosts := origin.NewHosts(loopback, []string{"Cache.Example.Internal", "10.0.0.9", "fd00::9"})
	for host, answered := range map[string]bool{
		"127.0.0.1:5000":              true, // containerd, Docker, podman
		"127.0.0.1":                   true,
		"localhost:5000":              true,
		"LOCALHOST":                   true,
		"localhost.:5000":             true,
		"127.1.2.3:8080":              true, // a forwarded port
		"[::1]:5000":                  true,
		"[::1]":                       true,
		"[::ffff:127.0.0.1]:5000":     true,
		"cache.example.internal":      true,
		"CACHE.example.internal:5000": true,
		"cache.example.internal.":     true,
		"10.0.0.9:5000":               true, // one of names
		"[fd00::9]:5000":              true,

		"":                                  false,
		"evil.example:5000":                 false, // rebinding
		"localhost.evil.example":            false,
		"127.0.0.1.evil.example:5000":       false,
		"evil-localhost":                    false,
		"cache.example.internal.evil.test":  false,
		"other.cache.example.internal:5000": false,
		"10.0.0.8:5000":                     false, // no address of the listener
		"0.0.0.0:5000":                      false,
		"127.0.0.1:5000:5000":               false,
		"127.1":                             false, // a name, to Larder
		"user@127.0.0.1":                    false,
	} {
		err := hosts.Check(request(host, "127.0.0.1:5000"))
		if answered && err != nil || !answered && !errors.Is(err, origin.ErrHost) {
			t.Errorf("Host %q: %v; answered must be %v", host, err, answered)
		}
	}
}

func TestListenerBeyondLoopbackChecksHostsOnlyIfItHasNames(t *testing.T) {
	everywhere := &net.TCPAddr{IP: net.IPv4zero, Port: 5000}
	evil := request("evil.example:5000", "10.0.0.7:5000")
	if hosts := origin.NewHosts(everywhere, nil); !hosts.All() || hosts.Check(evil) != nil {
		t.Error("without names, a listener beyond loopback refuses a Host")
	}
	hosts := origin.NewHosts(everywhere, []string{"node-7"})
	for host, answered := range map[string]bool{
		"10.0.0.7:5000":  true, // the address that the client has connected to
		"127.0.0.1:5000": true,
		"localhost:5000": true,
		"node-7:5000":    true,
		"10.0.0.8:5000":  false,
		"evil.example":   false,
	} {
		err := hosts.Check(request(host, "10.0.0.7:5000"))
		if answered && err != nil || !answered && !errors.Is(err, origin.ErrHost) {
			t.Errorf("Host %q: %v; answered must be %v", host, err, answered)
		}
	}
	if err := hosts.Check(request("[fe80::7]:5000", "[fe80::7%eth0]:5000")); err != nil {
		t.Errorf("a link-local address of the listener: %v", err)
	}
}

func TestUnixSocketAnswersEveryHost(t *testing.T) {
	hosts := origin.NewHosts(&net.UnixAddr{Name: "/run/larder.sock", Net: "unix"}, []string{"node-7"})
	if err := hosts.Check(request("larder", "127.0.0.1:1")); err != nil {
		t.Error(err)
	}
}

func TestRequestsOfOtherSitesPagesAreRefused(t *testing.T) {
	for name, test := range map[string]struct {
		header  http.Header
		refused bool
	}{
		"a client that is no browser": {http.Header{}, false},
		"the page itself":             {http.Header{"Sec-Fetch-Site": {"same-origin"}}, false},
		"the user's own":              {http.Header{"Sec-Fetch-Site": {"none"}}, false},
		"its own Origin":              {http.Header{"Origin": {"http://127.0.0.1:5000"}}, false},
		"its own Origin, and fetched": {http.Header{"Sec-Fetch-Site": {"same-origin"}, "Origin": {"http://127.0.0.1:5000"}}, false},
		"another site":                {http.Header{"Sec-Fetch-Site": {"cross-site"}}, true},
		"another port":                {http.Header{"Sec-Fetch-Site": {"same-site"}}, true},
		"twice":                       {http.Header{"Sec-Fetch-Site": {"none", "cross-site"}}, true},
		"empty":                       {http.Header{"Sec-Fetch-Site": {""}}, true},
		"another Origin":              {http.Header{"Origin": {"https://evil.example"}}, true},
		"an Origin of another port":   {http.Header{"Origin": {"http://127.0.0.1:8080"}}, true},
		"a sandboxed page":            {http.Header{"Origin": {"null"}}, true},
		"an empty Origin":             {http.Header{"Origin": {""}}, true},
		"an Origin that is none":      {http.Header{"Origin": {"http://[::1"}}, true},
	} {
		r := request("127.0.0.1:5000", "127.0.0.1:5000")
		r.Header = test.header
		if err := origin.CheckSite(r); errors.Is(err, origin.ErrSite) != test.refused {
			t.Errorf("%s: %v; refused must be %v", name, err, test.refused)
		}
	}
}
