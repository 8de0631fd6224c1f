// Package origin keeps web pages away from Larder's listeners. A browser on this machine
// reaches a loopback address for every page that it shows. A page can use that in two ways:
//
//   - DNS rebinding: the page's own name is made to resolve to the listener's address, so
//     that the page may read the responses. The Host header is then the page's name.
//     [Hosts.Check] refuses it.
//   - A cross-site request: the page requests the listener's address. It cannot read the
//     response, but the request has effects, such as a fetch into the cache. Browsers say
//     where such a request comes from. [CheckSite] refuses it.
//
// Clients that are not browsers name the address that they connect to, and send no Origin.
package origin

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
)

var (
	// ErrHost is the error for a request whose Host header is not one of the listener.
	ErrHost = errors.New("this Host is not served here")
	// ErrSite is the error for a request that another site's page makes.
	ErrSite = errors.New("pages of other sites have no access")
)

// Hosts are the values of the Host header that a listener answers. It is immutable.
type Hosts struct {
	any   bool
	names map[string]bool // in canonical form
}

// NewHosts returns the hosts of a listener at an address: loopback addresses and
// localhost, the address that the client has connected to, and names, which are host
// names or addresses without ports. A listener that is not on TCP answers every Host. So
// does one beyond loopback if there are no names: its clients may know it by any name.
func NewHosts(at net.Addr, names []string) Hosts {
	tcp, ok := at.(*net.TCPAddr)
	if !ok || !tcp.IP.IsLoopback() && len(names) == 0 {
		return Hosts{any: true}
	}
	h := Hosts{names: map[string]bool{"localhost": true}}
	for _, name := range names {
		h.names[canonical(name)] = true
	}
	return h
}

// All reports whether every Host is answered.
func (h Hosts) All() bool { return h.any }

// Check returns ErrHost, with the host that the client sent, unless the listener answers
// the request's Host. The port does not matter: it may be one that is forwarded to the
// listener, and rebinding cannot change it.
func (h Hosts) Check(r *http.Request) error {
	if h.any {
		return nil
	}
	host := r.Host
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	if name := canonical(host); h.names[name] || isOf(name, r) {
		return nil
	}
	return fmt.Errorf("%w: %.80q is neither an address of this listener nor one of names in the configuration", ErrHost, host)
}

// isOf reports whether a canonical host is a loopback address, or the address that the
// client of a request has connected to.
func isOf(host string, r *http.Request) bool {
	addr, err := netip.ParseAddr(host)
	if err != nil {
		return false
	}
	if addr.IsLoopback() {
		return true
	}
	local, ok := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr)
	return ok && addr == local.AddrPort().Addr().Unmap().WithZone("")
}

// canonical returns a host without a port in the form in which hosts are compared: in
// lower case, without the dot at the end and, for an address, in its one form without
// brackets and zone.
func canonical(host string) string {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	literal := strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	if addr, err := netip.ParseAddr(literal); err == nil {
		return addr.Unmap().WithZone("").String()
	}
	return host
}

// CheckSite returns ErrSite for a request that a browser makes for a page of another
// site or another port. Browsers tell this by Sec-Fetch-Site (W3C "Fetch Metadata"), and
// before they had that by Origin. No page can set or remove either.
func CheckSite(r *http.Request) error {
	if sites := r.Header["Sec-Fetch-Site"]; len(sites) > 0 {
		for _, site := range sites {
			if site != "same-origin" && site != "none" { // none: the user's own doing
				return ErrSite
			}
		}
		return nil
	}
	for _, origin := range r.Header["Origin"] {
		if from, err := url.Parse(origin); err != nil || from.Host == "" || !strings.EqualFold(from.Host, r.Host) {
			return ErrSite
		}
	}
	return nil
}
