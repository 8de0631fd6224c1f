package guard

import (
	"net"
	"net/http"
	"net/url"
	"strings"

	"golang.org/x/net/http/httpproxy"
)

// Proxy returns the environment's proxy for a request, as http.ProxyFromEnvironment
// does. There is none for link-local and metadata addresses: no proxy reaches those
// of this node, and an instance's credentials are not for a proxy to see.
func Proxy(req *http.Request) (*url.URL, error) {
	if classifyHost(req.URL.Hostname()) == linkLocal {
		return nil, nil
	}
	return http.ProxyFromEnvironment(req)
}

// proxyAddresses lists the proxies of HTTP_PROXY and HTTPS_PROXY as host:port.
// The operator set them, so they may have any address.
func proxyAddresses() map[string]bool {
	addrs := make(map[string]bool)
	env := httpproxy.FromEnvironment()
	for _, raw := range []string{env.HTTPProxy, env.HTTPSProxy} {
		if raw == "" {
			continue
		}
		if !strings.Contains(raw, "://") {
			raw = "http://" + raw
		}
		u, err := url.Parse(raw)
		if err != nil {
			continue // http.ProxyFromEnvironment ignores a URL that is not valid too
		}
		port := u.Port()
		if port == "" {
			port = map[string]string{"https": "443", "socks5": "1080", "socks5h": "1080"}[u.Scheme]
		}
		if port == "" {
			port = "80"
		}
		addrs[net.JoinHostPort(u.Hostname(), port)] = true
	}
	return addrs
}
