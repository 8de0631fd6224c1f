package config

import (
	"net/netip"
	"strconv"
	"strings"
)

// isHost reports whether s is host[:port]: a host name of RFC 1123, an IPv4
// address or an IPv6 address in brackets, and a port from 1 to 65535. What it
// accepts can stand as the host of a URL without changing its meaning.
func isHost(s string) bool { return validHost(s, false) }

// isHostPattern reports whether s is a host[:port] in which the labels, but not
// the last one, may have stars.
func isHostPattern(s string) bool { return isPattern(s) && validHost(s, true) }

// isPattern tells a pattern from a host, where s is known to be one of them.
func isPattern(s string) bool { return strings.Contains(s, "*") }

func validHost(s string, stars bool) bool {
	if rest, ok := strings.CutPrefix(s, "["); ok {
		literal, port, closed := strings.Cut(rest, "]")
		addr, err := netip.ParseAddr(literal)
		return closed && err == nil && addr.Is6() && addr.Zone() == "" && (port == "" || port[0] == ':' && isPort(port[1:]))
	}
	name, port, hasPort := strings.Cut(s, ":")
	if hasPort && !isPort(port) || len(name) > 253 {
		return false
	}
	labels := strings.Split(name, ".")
	last := labels[len(labels)-1]
	for _, label := range labels {
		if !isLabel(label, stars) {
			return false
		}
	}
	if isPattern(last) {
		return false
	}
	if strings.Trim(last, "0123456789") == "" {
		// Only a whole address may end in a number: resolvers take 127.1 for one.
		_, err := netip.ParseAddr(name)
		return err == nil
	}
	return true
}

func isLabel(s string, stars bool) bool {
	if s == "" || len(s) > 63 || s[0] == '-' || s[len(s)-1] == '-' || strings.Contains(s, "**") {
		return false
	}
	for _, c := range []byte(s) {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-':
		case c == '*' && stars:
		default:
			return false
		}
	}
	return true
}

func isPort(s string) bool {
	n, err := strconv.ParseUint(s, 10, 16)
	return err == nil && n > 0 && s[0] != '0'
}

// isLoopback reports whether host, without port and brackets, can only be this
// machine. No name but localhost counts as that, whatever it resolves to.
func isLoopback(host string) bool {
	addr, err := netip.ParseAddr(host)
	return strings.EqualFold(host, "localhost") || err == nil && addr.Unmap().IsLoopback()
}

// isAddress reports whether a host[:port] is an IP address rather than a name.
func isAddress(host string) bool {
	name, _, _ := strings.Cut(host, ":")
	_, err := netip.ParseAddr(name)
	return strings.HasPrefix(host, "[") || err == nil
}
