// The tests are inside the package: they replace the way to name servers, and the
// connections to addresses.
package dial

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/larder-registry/larder/upstream/pace"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// pass lets time go by in a bubble.
func pass(d time.Duration) { <-time.After(d) }

func addresses(texts ...string) (addrs []netip.Addr) {
	for _, text := range texts {
		addrs = append(addrs, netip.MustParseAddr(text))
	}
	return addrs
}

func TestFamiliesOfAddressesAlternate(t *testing.T) {
	for _, test := range []struct{ from, want []netip.Addr }{
		{addresses("2001:db8::1", "2001:db8::2", "192.0.2.1"), addresses("2001:db8::1", "192.0.2.1", "2001:db8::2")},
		{addresses("192.0.2.1", "192.0.2.2", "2001:db8::1"), addresses("192.0.2.1", "2001:db8::1", "192.0.2.2")},
		{addresses("192.0.2.1"), addresses("192.0.2.1")},
		{nil, nil},
	} {
		if got := order(test.from); !slices.Equal(got, test.want) {
			t.Errorf("%v: %v, want %v", test.from, got, test.want)
		}
	}
	if got := order(slices.Repeat(addresses("192.0.2.1"), 100)); len(got) != maxAddresses {
		t.Errorf("%d of 100 addresses are tried, want %d", len(got), maxAddresses)
	}
}

var errRefused = errors.New("connection refused")

// conn is a connection that notes that it was closed.
type conn struct {
	net.Conn
	closed bool
}

func (c *conn) Close() error { c.closed = true; return nil }

func TestFirstAddressThatAnswersCounts(t *testing.T) {
	addrs := addresses("2001:db8::1", "192.0.2.1", "2001:db8::2")
	for name, test := range map[string]struct {
		takes []time.Duration // to connect to each address; below 0 to be refused after that time
		won   int             // or -1
		after time.Duration
	}{
		"the first answers at once":            {[]time.Duration{10 * time.Millisecond, time.Hour, time.Hour}, 0, 10 * time.Millisecond},
		"the first is slow":                    {[]time.Duration{400 * time.Millisecond, time.Hour, time.Hour}, 0, 400 * time.Millisecond},
		"the first loses packets":              {[]time.Duration{time.Hour, 10 * time.Millisecond, time.Hour}, 1, headStart + 10*time.Millisecond},
		"only the last answers":                {[]time.Duration{time.Hour, time.Hour, 10 * time.Millisecond}, 2, 2*headStart + 10*time.Millisecond},
		"the first refuses":                    {[]time.Duration{-time.Millisecond, time.Millisecond, time.Hour}, 1, 2 * time.Millisecond},
		"two answer at almost the same time":   {[]time.Duration{headStart + 2*time.Millisecond, time.Millisecond, time.Hour}, 1, headStart + time.Millisecond},
		"all refuse":                           {[]time.Duration{-time.Millisecond, -time.Millisecond, -time.Millisecond}, -1, 3 * time.Millisecond},
		"the first is silent, others refuse":   {[]time.Duration{time.Hour, -time.Millisecond, -time.Millisecond}, -1, pace.ConnectTimeout},
		"none answers within the time of them": {[]time.Duration{time.Hour, time.Hour, time.Hour}, -1, pace.ConnectTimeout},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				conns := []*conn{{}, {}, {}}
				began := time.Now()
				ctx, cancel := context.WithTimeout(t.Context(), pace.ConnectTimeout)
				defer cancel()
				got, err := race(ctx, addrs, func(ctx context.Context, addr netip.Addr) (net.Conn, error) {
					i := slices.Index(addrs, addr)
					select {
					case <-time.After(max(test.takes[i], -test.takes[i])):
					case <-ctx.Done():
						return nil, ctx.Err()
					}
					if test.takes[i] < 0 {
						return nil, errRefused
					}
					return conns[i], nil
				})
				if took := time.Since(began); took != test.after {
					t.Errorf("it took %v, want %v", took, test.after)
				}
				if test.won < 0 {
					if err == nil {
						t.Error("there is a connection")
					}
					return
				}
				if err != nil || got != conns[test.won] || conns[test.won].closed {
					t.Errorf("got %v, %v", got, err)
				}
			})
		})
	}
}

func TestConnectionThatComesTooLateIsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		late := new(conn)
		addrs := addresses("2001:db8::1", "192.0.2.1")
		got, err := race(t.Context(), addrs, func(ctx context.Context, addr netip.Addr) (net.Conn, error) {
			if addr == addrs[1] {
				return new(conn), nil
			}
			<-ctx.Done() // it was connected when this came
			return late, nil
		})
		if err != nil || got == late || !late.closed {
			t.Errorf("got %v, %v; the late one is closed: %t", got, err, late.closed)
		}
	})
}

func TestNameWithoutAddressesIsAnError(t *testing.T) {
	if _, err := race(t.Context(), nil, nil); err == nil {
		t.Error("there is a connection")
	}
}

func TestConnectionIsMade(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	for _, host := range []string{"127.0.0.1", "localhost"} {
		c, err := New(Options{}).DialContext(t.Context(), "tcp", net.JoinHostPort(host, port))
		if err != nil {
			t.Errorf("%s: %v", host, err)
			continue
		}
		c.Close()
	}
	var dns *net.DNSError
	if _, err := New(Options{}).DialContext(t.Context(), "tcp", "registry.larder.invalid:443"); !errors.As(err, &dns) {
		t.Errorf("a name that does not exist: %v", err)
	}
}
