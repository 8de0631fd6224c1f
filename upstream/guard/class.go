package guard

import (
	"net/netip"
	"slices"
	"strings"
)

// class is the kind of address that a connection goes to.
type class int

const (
	// elsewhere is any public or private address.
	elsewhere class = iota
	loopback
	linkLocal   // with all metadata services
	unspecified // never allowed: 0.0.0.0, multicast, broadcast
)

// metadata are the services that give a machine its credentials, outside of the
// link-local addresses: of EC2 and EKS Pod Identity over IPv6 (AWS, "Instance
// metadata": fd00:ec2::254, fd00:ec2::23), Google Cloud over IPv6, Oracle Cloud over
// IPv6, Scaleway over IPv6, Alibaba Cloud, and Azure's host.
var metadata = []netip.Prefix{
	netip.MustParsePrefix("fd00:ec2::/32"),
	netip.MustParsePrefix("fd20:ce::254/128"),
	netip.MustParsePrefix("fd00:c1::a9fe:a9fe/128"),
	netip.MustParsePrefix("fd00:42::42/128"),
	netip.MustParsePrefix("100.100.100.200/32"),
	netip.MustParsePrefix("168.63.129.16/32"),
}

// metadataNames are the names of these services. Behind a proxy, a name is all there
// is to judge.
var metadataNames = []string{"metadata.google.internal", "metadata.goog", "instance-data.ec2.internal"}

// lattice are the addresses of VPC Lattice services, registries among them, although
// they lie within the link-local and the metadata ranges (AWS, "VPC Lattice", "Control
// traffic using security groups").
var lattice = []netip.Prefix{
	netip.MustParsePrefix("169.254.171.0/24"),
	netip.MustParsePrefix("fd00:ec2:80::/64"),
}

// embedding are the IPv6 addresses that stand for an IPv4 address, which a gateway or
// the kernel translates them to.
var embedding = []struct {
	prefix netip.Prefix
	at     int // the byte at which the IPv4 address begins
}{
	{netip.MustParsePrefix("64:ff9b::/96"), 12},    // NAT64 (RFC 6052, 2.1)
	{netip.MustParsePrefix("64:ff9b:1::/48"), 12},  // NAT64 of a local prefix of 96 bits (RFC 8215)
	{netip.MustParsePrefix("2002::/16"), 2},        // 6to4 (RFC 3056, 2)
	{netip.MustParsePrefix("::/96"), 12},           // IPv4-compatible (RFC 4291, 2.5.5.1)
	{netip.MustParsePrefix("::ffff:0:0:0/96"), 12}, // IPv4-translated (RFC 2765, 2.1)
}

// embedded returns the IPv4 address that an IPv6 address stands for.
func embedded(addr netip.Addr) (netip.Addr, bool) {
	raw := addr.As16()
	for _, e := range embedding {
		if e.prefix.Contains(addr) {
			return netip.AddrFrom4([4]byte(raw[e.at : e.at+4])), true
		}
	}
	return netip.Addr{}, false
}

func classify(addr netip.Addr) class {
	addr = addr.Unmap().WithZone("")
	within := func(p netip.Prefix) bool { return p.Contains(addr) }
	switch {
	case addr.IsLoopback():
		return loopback
	case slices.ContainsFunc(lattice, within):
		return elsewhere
	case addr.IsLinkLocalUnicast(), slices.ContainsFunc(metadata, within):
		return linkLocal
	case !addr.IsValid(), addr.IsUnspecified(), addr.IsMulticast(), addr == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return unspecified
	}
	if v4, ok := embedded(addr); ok {
		return classify(v4)
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
	if slices.Contains(metadataNames, host) {
		return linkLocal
	}
	if host == "localhost" || strings.HasSuffix(host, ".localhost") { // RFC 6761, 6.3
		return loopback
	}
	return elsewhere
}
