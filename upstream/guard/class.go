package guard

import (
	"net/netip"
	"strings"
)

// class is the kind of address that a connection goes to.
type class int

const (
	// elsewhere is any public or private address.
	elsewhere class = iota
	loopback
	linkLocal   // with the metadata services
	unspecified // never allowed: 0.0.0.0, multicast, broadcast
)

// ec2Metadata is the instance metadata and credential service over IPv6, which
// are unique local addresses rather than link-local ones (AWS, "Instance
// metadata", and EKS, "Pod Identity": fd00:ec2::254, fd00:ec2::23).
var ec2Metadata = netip.MustParsePrefix("fd00:ec2::/32")

func classify(addr netip.Addr) class {
	addr = addr.Unmap().WithZone("")
	switch {
	case addr.IsLoopback():
		return loopback
	case addr.IsLinkLocalUnicast(), ec2Metadata.Contains(addr):
		return linkLocal
	case !addr.IsValid(), addr.IsUnspecified(), addr.IsMulticast(), addr == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return unspecified
	}
	return elsewhere
}

// classifyHost judges a host by its name alone: an address in its textual form,
// or a name that means this machine. Any other name is judged when it is dialled.
func classifyHost(host string) class {
	host = strings.TrimSuffix(strings.ToLower(host), ".")
	if addr, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil {
		return classify(addr)
	}
	if host == "localhost" || strings.HasSuffix(host, ".localhost") { // RFC 6761, 6.3
		return loopback
	}
	return elsewhere
}
