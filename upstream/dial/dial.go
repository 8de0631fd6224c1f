package dial

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"

	"github.com/larder-registry/larder/upstream/pace"
)

// Options are the settings of a [Dialer].
type Options struct {
	// Resolver looks names up. Nil means one of [NewResolver].
	Resolver *Resolver
	// Control sees each address just before connect(2), as in net.Dialer, and may
	// refuse it. Nil allows every address.
	Control func(ctx context.Context, network, address string, c syscall.RawConn) error
}

// Dialer makes connections. It is safe for concurrent use.
type Dialer struct {
	resolver *Resolver
	connect  net.Dialer
	outages  *pace.Outages
}

// keepAlive is how often an idle connection is probed.
const keepAlive = 30 * time.Second

// New returns a Dialer.
func New(opts Options) *Dialer {
	if opts.Resolver == nil {
		opts.Resolver = NewResolver()
	}
	return &Dialer{
		resolver: opts.Resolver,
		connect:  net.Dialer{Timeout: pace.ConnectTimeout, KeepAlive: keepAlive, ControlContext: opts.Control},
		outages:  pace.NewOutages(),
	}
}

// DialContext is for http.Transport. The look-up takes [pace.LookupTimeout] at most,
// and after it the connection [pace.ConnectTimeout].
func (d *Dialer) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	return d.outages.Dial(ctx, addr, func() (net.Conn, error) {
		host, port, err := net.SplitHostPort(addr)
		if err != nil {
			return nil, err
		}
		addrs, err := d.resolver.lookup(ctx, host)
		if err != nil {
			return nil, err
		}
		ctx, cancel := context.WithTimeout(ctx, pace.ConnectTimeout)
		defer cancel()
		return race(ctx, order(addrs), func(ctx context.Context, ip netip.Addr) (net.Conn, error) {
			return d.connect.DialContext(ctx, network, net.JoinHostPort(ip.String(), port))
		})
	})
}

const (
	// headStart is how long an address is tried before the next one is tried too (RFC
	// 8305, section 8: 250 ms).
	headStart = 250 * time.Millisecond
	// maxAddresses bounds the addresses of one name that are tried. S3 has eight of
	// each family.
	maxAddresses = 16
)

// order lets the families of addresses alternate, in the resolver's order (RFC 8305,
// section 4), so that a family without a route costs one headStart.
func order(addrs []netip.Addr) []netip.Addr {
	if len(addrs) == 0 {
		return nil
	}
	var first, second []netip.Addr
	for _, a := range addrs {
		if a.Is4() == addrs[0].Is4() {
			first = append(first, a)
		} else {
			second = append(second, a)
		}
	}
	mixed := make([]netip.Addr, 0, len(addrs))
	for i := range max(len(first), len(second)) {
		if i < len(first) {
			mixed = append(mixed, first[i])
		}
		if i < len(second) {
			mixed = append(mixed, second[i])
		}
	}
	return mixed[:min(len(mixed), maxAddresses)]
}

// race returns the first connection to one of the addresses. The next address is
// tried when one fails or its headStart is over. If all fail, the error is that of the
// first one that failed. No attempt outlives race.
func race(ctx context.Context, addrs []netip.Addr, connect func(context.Context, netip.Addr) (net.Conn, error)) (net.Conn, error) {
	type outcome struct {
		conn net.Conn
		err  error
	}
	ctx, cancel := context.WithCancel(ctx)
	outcomes := make(chan outcome, len(addrs))
	begun, ended := 0, 0
	defer func() {
		cancel()
		for ; ended < begun; ended++ {
			if late := <-outcomes; late.conn != nil {
				_ = late.conn.Close() // nothing was sent
			}
		}
	}()
	next := time.NewTimer(0)
	defer next.Stop()
	var failure error
	for ended < len(addrs) {
		select {
		case <-next.C:
			if begun == len(addrs) {
				continue
			}
			addr := addrs[begun]
			begun++
			go func() {
				conn, err := connect(ctx, addr)
				outcomes <- outcome{conn, err}
			}()
			next.Reset(headStart)
		case o := <-outcomes:
			ended++
			if o.err == nil {
				return o.conn, nil
			}
			if failure == nil {
				failure = o.err
			}
			next.Reset(0)
		}
	}
	if failure == nil {
		failure = fmt.Errorf("connect: %w", &net.AddrError{Err: "the name has no address"})
	}
	return nil, failure
}
