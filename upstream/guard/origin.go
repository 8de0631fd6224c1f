package guard

import (
	"net/url"
	"strings"
)

// Origin returns the part of a URL that may be shown: the query of a signed URL
// is a credential.
func Origin(u *url.URL) string { return u.Scheme + "://" + u.Host }

// SameOrigin reports whether two http or https URLs are of one scheme, host and port.
// A port that is left out is the scheme's own. What is sent to one may be sent to the
// other, credentials too.
func SameOrigin(a, b *url.URL) bool {
	return a.Scheme == b.Scheme && strings.EqualFold(a.Hostname(), b.Hostname()) && port(a) == port(b)
}

// HasOwnPort reports whether a URL's port is the one of its scheme, written out or
// not.
func HasOwnPort(u *url.URL) bool { return port(u) == ownPorts[u.Scheme] }

// ownPorts are the ports of schemes (RFC 9110, 4.2).
var ownPorts = map[string]string{"http": "80", "https": "443"}

func port(u *url.URL) string {
	if p := u.Port(); p != "" {
		return p
	}
	return ownPorts[u.Scheme]
}
