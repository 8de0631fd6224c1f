package conns_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"go.opentelemetry.io/otel/metric/noop"

	"github.com/larder-registry/larder/cmd/internal/daemon/conns"
	"github.com/larder-registry/larder/cmd/internal/daemon/tlsfiles/tlstest"
	"github.com/larder-registry/larder/upstream/upstreamtest"
)

// everywhere is a listener at all addresses of the machine.
type everywhere struct{ net.Listener }

func (everywhere) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4zero, Port: 5000} }

// from is the server's end of a pipe from an address.
type from struct {
	net.Conn
	addr string
}

func (f from) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(netip.MustParseAddrPort(f.addr)) }

// rig serves over pipes: a request for /hold is answered when the rig is released.
type rig struct {
	t       *testing.T
	pipes   *upstreamtest.Pipes
	release chan struct{}
}

func newRig(t *testing.T, bounds conns.Bounds) *rig {
	t.Helper()
	r := &rig{t: t, pipes: upstreamtest.NewPipes(), release: make(chan struct{})}
	l, err := conns.Limit(everywhere{r.pipes}, "clients", bounds, noop.NewMeterProvider(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{
		ConnState: l.Note,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			if req.URL.Path == "/hold" {
				<-r.release
			}
			w.WriteHeader(http.StatusNoContent)
		}),
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(l) }()
	t.Cleanup(func() {
		close(r.release)
		if err := server.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
		if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
	return r
}

// dial returns a new connection from an address.
func (r *rig) dial(addr string) net.Conn {
	r.t.Helper()
	client, server := net.Pipe()
	r.t.Cleanup(func() { _ = client.Close() }) // a pipe's is nil
	if err := r.pipes.Connect(r.t.Context(), from{server, addr}); err != nil {
		r.t.Fatal(err)
	}
	synctest.Wait()
	return client
}

// get sends a request and returns its status, or 0 if the connection was closed.
func (r *rig) get(c net.Conn) int {
	if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: larder\r\n\r\n"); err != nil {
		return 0
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return 0
	}
	_ = resp.Body.Close() // it is empty
	return resp.StatusCode
}

// hold sends a request that is not answered until the rig ends.
func (r *rig) hold(c net.Conn) {
	r.t.Helper()
	if _, err := io.WriteString(c, "GET /hold HTTP/1.1\r\nHost: larder\r\n\r\n"); err != nil {
		r.t.Fatal(err)
	}
	synctest.Wait()
}

func TestConnectionsThatAreInUseLeaveTheirPlaceToNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, conns.Bounds{All: 3, PerClient: 2, Stall: time.Minute})
		for range 2 {
			r.hold(r.dial("10.0.0.7:1"))
		}
		<-time.After(time.Hour)
		if got := r.get(r.dial("10.0.0.7:2")); got != 0 {
			t.Errorf("the third connection of a client that may have two: %d", got)
		}
		other := r.dial("10.0.0.8:1")
		if got := r.get(other); got != http.StatusNoContent {
			t.Errorf("another client: %d, want 204", got)
		}
		r.hold(other)
		if got := r.get(r.dial("10.0.0.9:1")); got != 0 {
			t.Errorf("the fourth connection of three: %d", got)
		}
	})
}

func TestUnusedConnectionsMakePlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, conns.Bounds{All: 3, PerClient: 2, Stall: time.Minute})
		silent := r.dial("10.0.0.7:1") // never sends a request
		<-time.After(time.Second)
		idle := r.dial("10.0.0.7:2")
		if got := r.get(idle); got != http.StatusNoContent {
			t.Fatalf("%d, want 204", got)
		}
		<-time.After(time.Second)
		third := r.dial("10.0.0.7:3")
		if got := r.get(third); got != http.StatusNoContent {
			t.Errorf("the third connection of a client that has two unused ones: %d, want 204", got)
		}
		if got := r.get(silent); got != 0 {
			t.Errorf("the connection that waited longest was kept: %d", got)
		}
		if got := r.get(idle); got != http.StatusNoContent {
			t.Errorf("the other unused connection: %d, want 204", got)
		}
		if got := r.get(r.dial("10.0.0.7:4")); got != 0 {
			t.Errorf("a connection whose request may be on its way made place: %d", got)
		}
	})
}

func TestClosedConnectionsGiveTheirPlaceBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, conns.Bounds{All: 2, PerClient: 1, Stall: time.Minute})
		for i := range 10 {
			c := r.dial(fmt.Sprintf("10.0.0.7:%d", i+1))
			if got := r.get(c); got != http.StatusNoContent {
				t.Fatalf("connection %d: %d, want 204", i, got)
			}
			_ = c.Close() // a pipe's is nil
			synctest.Wait()
		}
	})
}

func TestClientOfIPv6IsItsNetworkAndLoopbackIsNoClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, conns.Bounds{All: 4, PerClient: 1, Stall: time.Minute})
		r.hold(r.dial("[2001:db8:0:1::7]:1"))
		if got := r.get(r.dial("[2001:db8:0:1::8]:1")); got != 0 {
			t.Errorf("another address of the same network: %d", got)
		}
		r.hold(r.dial("[2001:db8:0:2::7]:1"))
		for range 2 { // processes of this machine
			r.hold(r.dial("127.0.0.1:1"))
		}
	})
}

// The whole way: a kernel's socket, sendfile or TLS, and a client that stops in the middle.
func TestStalledClientOfAServerIsCut(t *testing.T) {
	t.Run("HTTP", func(t *testing.T) { stall(t, nil, nil) })
	ca := tlstest.NewAuthority(t)
	server := &tls.Config{Certificates: []tls.Certificate{ca.Server(t, "server").Load(t)}}
	t.Run("HTTPS", func(t *testing.T) { stall(t, server, &tls.Config{RootCAs: ca.Pool, ServerName: "localhost"}) })
}

// stall has a client take nothing of a file, over TLS if there are settings for it.
func stall(t *testing.T, secure, trust *tls.Config) {
	t.Helper()
	const size = 64 << 20 // more than the buffers of two sockets
	path := filepath.Join(t.TempDir(), "blob")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Truncate(size), f.Close()); err != nil {
		t.Fatal(err)
	}
	inner, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l, err := conns.Limit(inner, "clients", conns.Bounds{All: 2, PerClient: 2, Stall: 100 * time.Millisecond}, noop.NewMeterProvider(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	answered := make(chan struct{})
	server := &http.Server{ConnState: l.Note, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer close(answered)
		http.ServeFile(w, r, path)
	})}
	var serving net.Listener = l
	if secure != nil {
		serving = tls.NewListener(l, secure)
	}
	go func() { _ = server.Serve(serving) }()
	defer server.Close()
	c, err := new(net.Dialer).DialContext(t.Context(), "tcp", inner.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if secure != nil {
		over := tls.Client(c, trust)
		if err := over.HandshakeContext(t.Context()); err != nil {
			t.Fatal(err)
		}
		c = over
	}
	if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: larder\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	select {
	case <-answered:
	case <-time.After(20 * time.Second):
		t.Fatal("a client that takes nothing holds its request")
	}
	if got, err := io.Copy(io.Discard, c); got >= size {
		t.Errorf("a client that took nothing got %d bytes, %v", got, err)
	}
}

func TestBoundsKeepDescriptorsBack(t *testing.T) {
	for descriptors, want := range map[uint64]int{0: 2, 96: 2, 256: 40, 1024: 232, 65536: 4096, 1 << 62: 4096} {
		b := conns.ForClients(descriptors, false)
		if b.All != want || b.PerClient != (want+1)/2 || b.Stall < 2*time.Minute {
			t.Errorf("%d descriptors: %+v, want %d connections", descriptors, b, want)
		}
		if admin := conns.ForAdmin(descriptors); descriptors >= 256 && uint64(3*b.All+admin.All) > descriptors {
			t.Errorf("%d descriptors: %d connections with three each, and %d for operators", descriptors, b.All, admin.All)
		}
		shared := conns.ForClients(descriptors, true)
		if admin := conns.ForAdmin(descriptors); descriptors >= 256 && uint64(2*3*shared.All+admin.All) > descriptors {
			t.Errorf("%d descriptors: %d connections of clients and as many of nodes, with three each, and %d for operators", descriptors, shared.All, admin.All)
		}
		if descriptors >= 65536 && shared != b {
			t.Errorf("%d descriptors: %+v beside other nodes, though they suffice for both", descriptors, shared)
		}
	}
	if n, err := conns.Descriptors(); err != nil || n == 0 {
		t.Errorf("the limit of this process: %d, %v", n, err)
	}
}
