package name

import (
	"net/netip"
	"strconv"
	"strings"
)

// maxHostName is the length of the longest host name (RFC 1035, 2.3.4), without
// the port.
const maxHostName = 253

// ParseHost returns the host[:port] s in lower case, and whether it is valid: a
// host name of RFC 1123, an IPv4 address, or an IPv6 address in brackets without
// a zone; the port is from 1 to 65535. A valid host can stand as the host of a URL
// without changing its meaning.
func ParseHost(s string) (host string, ok bool) {
	if !isHost(s, false) {
		return "", false
	}
	return strings.ToLower(s), true
}

// CutHost splits a path of a registry at its first element if container tools
// take this for the host of a registry: it has a dot or a colon, or is localhost.
// It does not tell whether host and rest are valid.
func CutHost(path string) (host, rest string, ok bool) {
	host, rest, ok = strings.Cut(path, "/")
	if !ok || !strings.ContainsAny(host, ".:") && host != "localhost" {
		return "", path, false
	}
	return host, rest, true
}

// IsPort reports whether s is a port from 1 to 65535, without leading zeros.
func IsPort(s string) bool {
	n, err := strconv.ParseUint(s, 10, 16)
	return err == nil && n > 0 && s[0] != '0'
}

// IsLoopback reports whether a host without a port and brackets can only be this
// machine. The one name that counts is localhost; no name is resolved.
func IsLoopback(host string) bool {
	addr, err := netip.ParseAddr(host)
	return strings.EqualFold(host, "localhost") || err == nil && addr.Unmap().IsLoopback()
}

// Network returns the network that stands for the client at an address, which has a port: the address alone,
// or for IPv6 the network of 64 bits, of which a client has all addresses. It returns false for what is
// not such an address.
func Network(address string) (netip.Prefix, bool) {
	from, err := netip.ParseAddrPort(address)
	if err != nil {
		return netip.Prefix{}, false
	}
	at := from.Addr().Unmap().WithZone("")
	bits := at.BitLen()
	if at.Is6() && !at.IsLoopback() {
		bits = 64
	}
	return netip.PrefixFrom(at, bits).Masked(), true
}

// isHost reports whether s is a valid host[:port]. With stars, the labels of a
// name, but not the last one, may contain stars.
func isHost(s string, stars bool) bool {
	if literal, ok := strings.CutPrefix(s, "["); ok {
		literal, port, closed := strings.Cut(literal, "]")
		addr, err := netip.ParseAddr(literal)
		return closed && err == nil && addr.Is6() && addr.Zone() == "" && (port == "" || port[0] == ':' && IsPort(port[1:]))
	}
	name, port, hasPort := strings.Cut(s, ":")
	if hasPort && !IsPort(port) || len(name) > maxHostName {
		return false
	}
	var last string
	for label := range strings.SplitSeq(name, ".") {
		if !isLabel(label, stars) {
			return false
		}
		last = label
	}
	if strings.Contains(last, "*") {
		return false
	}
	if isNumber(last) {
		// Resolvers read a name such as 127.1 as an address. Only a complete address
		// may end in a number.
		_, err := netip.ParseAddr(name)
		return err == nil
	}
	return true
}

// isLabel reports whether s is a label of a host name (RFC 1123, 2.1).
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

// isAddress reports whether a valid host[:port] is an IP address: no host name
// ends in a number.
func isAddress(host string) bool {
	name, _, _ := strings.Cut(host, ":")
	return strings.HasPrefix(host, "[") || isNumber(name[strings.LastIndexByte(name, '.')+1:])
}

func isNumber(s string) bool { return strings.Trim(s, "0123456789") == "" }
