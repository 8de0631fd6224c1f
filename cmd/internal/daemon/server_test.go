package daemon

// White-box: the tests need a server on pipes, whose time is synctest's.

import (
	"bufio"
	"context"
	"crypto/tls"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.opentelemetry.io/otel/metric/noop"

	"github.com/larder-registry/larder/cmd/internal/daemon/conns"
	"github.com/larder-registry/larder/upstream/upstreamtest"
)

// dialServer starts a server that answers 204, and returns a connection to it. Reads from the connection end after an
// hour.
func dialServer(t *testing.T) net.Conn {
	t.Helper()
	return dialServerOver(t, nil)
}

// dialServerOver is dialServer with a server that speaks TLS, if there are settings for it.
func dialServerOver(t *testing.T, secure *tls.Config) net.Conn {
	t.Helper()
	l, log := upstreamtest.NewPipes(), slog.New(slog.DiscardHandler)
	limited, err := conns.Limit(l, "clients", conns.ForClients(1024, false), noop.NewMeterProvider(), log)
	if err != nil {
		t.Fatal(err)
	}
	s := newTCPServer(limited, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusNoContent)
	}), time.Minute, log)
	if secure != nil {
		s.secure(secure)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := s.serve(ctx); err != nil {
			t.Error(err)
		}
	})
	running.Go(func() { s.drainAfter(ctx) })
	client, err := l.Dial(t.Context(), "", "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = client.Close() // a pipe's is nil
		cancel()
		running.Wait()
	})
	if err := client.SetReadDeadline(time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	return client
}

// send writes a request and returns the status of the answer.
func send(t *testing.T, conn net.Conn, header string) int {
	t.Helper()
	return sendRaw(t, conn, header+"\r\n")
}

// sendRaw is send with the end of the header, and a body.
func sendRaw(t *testing.T, conn net.Conn, rest string) int {
	t.Helper()
	var writing sync.WaitGroup
	writing.Go(func() {
		_, _ = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: larder\r\n"+rest) // the server may refuse the rest
	})
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.Close {
		_ = conn.Close() // a pipe's is nil
	}
	writing.Wait()
	return resp.StatusCode
}

// requireClosedAfter fails the test unless the server closes the connection at the end of a duration.
func requireClosedAfter(t *testing.T, conn net.Conn, want time.Duration) {
	t.Helper()
	began := time.Now()
	_, err := io.Copy(io.Discard, conn)
	if took := time.Since(began); err != nil || took != want {
		t.Errorf("the connection ended after %v, %v; the server must close it after %v", took, err, want)
	}
}

func TestHeaderMustArriveWithinTenSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		conn := dialServer(t)
		var writing sync.WaitGroup
		writing.Go(func() { // slowly, and without an end
			_, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: larder\r\nX-Slow: ")
			for err == nil {
				pass(time.Second)
				_, err = io.WriteString(conn, "x")
			}
		})
		requireClosedAfter(t, conn, 10*time.Second)
		_ = conn.Close() // a pipe's is nil
		writing.Wait()
	})
}

func TestConnectionWithoutARequestIsClosedAfterTenSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		requireClosedAfter(t, dialServer(t), 10*time.Second)
	})
}

func TestIdleConnectionIsClosedAfterThreeMinutes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		conn := dialServer(t)
		for range 2 { // it is kept between requests
			if got := send(t, conn, ""); got != http.StatusNoContent {
				t.Fatalf("status %d, want %d", got, http.StatusNoContent)
			}
			pass(3*time.Minute - time.Second)
		}
		requireClosedAfter(t, conn, time.Second)
	})
}

func TestBodyThatDoesNotComeHoldsNothing(t *testing.T) {
	for name, header := range map[string]string{
		"none of it":   "Content-Length: 1000\r\n\r\n",
		"a part of it": "Content-Length: 1000\r\n\r\nx",
		"chunks":       "Transfer-Encoding: chunked\r\n\r\n5\r\nhe",
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				conn := dialServer(t)
				began := time.Now()
				if got := sendRaw(t, conn, header); got != http.StatusBadRequest || time.Since(began) != 10*time.Second {
					t.Errorf("status %d after %v, want 400 after 10s", got, time.Since(began))
				}
			})
		})
	}
}

func TestBodyThatNobodyWantsIsIgnored(t *testing.T) {
	for name, test := range map[string]struct {
		header string
		kept   bool // the connection
	}{
		"small":   {"Content-Length: 5\r\n\r\nhello", true},
		"chunked": {"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", true},
		"large":   {"Content-Length: 100000\r\n\r\n" + strings.Repeat("x", 100000), false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				conn := dialServer(t)
				if got := sendRaw(t, conn, test.header); got != http.StatusNoContent {
					t.Errorf("status %d, want 204", got)
				}
				pass(time.Minute)
				if test.kept {
					if got := send(t, conn, ""); got != http.StatusNoContent {
						t.Errorf("the next request: status %d, want 204", got)
					}
				} else if n, err := conn.Read(make([]byte, 1)); err == nil {
					t.Errorf("%d bytes more, on a connection that the server must close", n)
				}
			})
		})
	}
}

func TestHeaderMayHave128KiB(t *testing.T) {
	for name, test := range map[string]struct {
		size, want int
	}{
		"below": {127 << 10, http.StatusNoContent},
		"above": {136 << 10, http.StatusRequestHeaderFieldsTooLarge}, // net/http adds 4 KiB to the limit
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				if got := send(t, dialServer(t), "Range: "+strings.Repeat("x", test.size)+"\r\n"); got != test.want {
					t.Errorf("a header of %d bytes: status %d, want %d", test.size, got, test.want)
				}
			})
		})
	}
}

func TestEveryTCPListenerRefusesLargeHeaders(t *testing.T) {
	s, _ := serveInside(t, "")
	for name, addr := range map[string]string{"clients": s.listen, "admin": s.admin} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+addr+"/v2/", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Range", strings.Repeat("x", 136<<10))
		resp, err := s.client.Do(req)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if err := resp.Body.Close(); err != nil {
			t.Error(err)
		}
		if resp.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
			t.Errorf("%s: %s, want %d", name, resp.Status, http.StatusRequestHeaderFieldsTooLarge)
		}
	}
}
