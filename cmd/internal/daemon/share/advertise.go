package share

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/larder-registry/larder/config"
)

const (
	// routeTimeout bounds the look-up of the first peer's name.
	routeTimeout = 2 * time.Second
	// anywhere is an address for documentation, which nobody has (RFC 5737). The route to it is the default route.
	anywhere = "192.0.2.1:9"
)

// advertise returns the address by which others reach this node: the configured one, else the one on which
// it listens, else the local address of the route to the first peer, or of the default route.
func advertise(ctx context.Context, cfg config.Peers, listening netip.Addr) (netip.Addr, error) {
	if cfg.Advertise != "" {
		return netip.ParseAddr(cfg.Advertise)
	}
	if !listening.IsUnspecified() {
		return listening, nil
	}
	ctx, cancel := context.WithTimeout(ctx, routeTimeout)
	defer cancel()
	var last error
	for _, to := range append(cfg.Join[:min(len(cfg.Join), 1):1], anywhere) {
		conn, err := new(net.Dialer).DialContext(ctx, "udp", to) // sends nothing
		if err != nil {
			last = err
			continue
		}
		local := conn.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap()
		if err := conn.Close(); err != nil {
			last = err
			continue
		}
		return local, nil
	}
	return netip.Addr{}, fmt.Errorf("find out by which address peers reach this node: %w: set peers.advertise", last)
}
