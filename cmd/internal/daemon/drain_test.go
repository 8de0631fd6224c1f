package daemon

// White-box, as server_test.go.

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/larder-registry/larder/upstream/upstreamtest"
)

// testDrain is the drain of the tests' servers.
const testDrain = 20 * time.Second

// drained calls use in a bubble with a connection that the server has accepted, and a function that begins the drain;
// and again over TLS.
func drained(t *testing.T, h http.HandlerFunc, use func(t *testing.T, conn net.Conn, drain func())) {
	t.Helper()
	t.Run("HTTP", func(t *testing.T) { drainedOver(t, nil, nil, h, use) })
	server, client := pipeConfigs(t)
	t.Run("HTTPS", func(t *testing.T) { drainedOver(t, server, client, h, use) })
}

func drainedOver(t *testing.T, secure, trust *tls.Config, h http.HandlerFunc, use func(t *testing.T, conn net.Conn, drain func())) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		l := upstreamtest.NewPipes()
		s := newServer(l, h, testDrain, slog.New(slog.DiscardHandler))
		if secure != nil {
			s.secure(secure)
		}
		ctx, drain := context.WithCancel(t.Context())
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
		if secure != nil {
			over := tls.Client(client, trust)
			if err := over.HandshakeContext(t.Context()); err != nil {
				t.Fatal(err)
			}
			client = over
		}
		synctest.Wait()
		if err := client.SetReadDeadline(time.Now().Add(time.Hour)); err != nil {
			t.Fatal(err)
		}
		use(t, client, drain)
		_ = client.Close() // a pipe's is nil
		drain()
		running.Wait()
	})
}

func TestDrainAnswersARequestOnAnOpenConnection(t *testing.T) {
	answer := func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }
	drained(t, answer, func(t *testing.T, conn net.Conn, drain func()) {
		drain()
		pass(maxSilence - time.Millisecond)
		if got := send(t, conn, ""); got != http.StatusNoContent {
			t.Errorf("status %d", got)
		}
	})
}

func TestDrainDoesNotWaitForASilentClient(t *testing.T) {
	drained(t, http.NotFound, func(t *testing.T, conn net.Conn, drain func()) {
		drain()
		began := time.Now()
		_, err := io.Copy(io.Discard, conn)
		if took := time.Since(began); err != nil || took < maxSilence || took > testDrain/2 {
			t.Errorf("the connection ended after %v, %v; want about %v", took, err, maxSilence)
		}
	})
}

func TestDrainCutsAnswersAtItsEnd(t *testing.T) {
	forever := func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).Flush() // the client is there
		<-r.Context().Done()
	}
	drained(t, forever, func(t *testing.T, conn net.Conn, drain func()) {
		if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: larder\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		drain()
		began := time.Now()
		if _, err := io.ReadAll(resp.Body); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("the answer ended with %v", err)
		}
		if took := time.Since(began); took != testDrain {
			t.Errorf("it was cut after %v, want %v", took, testDrain)
		}
	})
}

func TestDrainTakesClientsThatComeBackForTheNextRange(t *testing.T) {
	const rangeTook = 3 * time.Second
	for name, test := range map[string]struct {
		welcomes bool
		ranges   int // that a client is answered which asks for one after the other
	}{
		"where it welcomes them":             {true, 6}, // the last begins in the time that it accepts connections
		"where another process accepts them": {false, 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := upstreamtest.NewPipes()
				slow := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
					pass(rangeTook)
					w.WriteHeader(http.StatusNoContent)
				})
				s := newServer(l, slow, testDrain, slog.New(slog.DiscardHandler))
				s.http.ConnState = func(conn net.Conn, state http.ConnState) {
					s.silent.note(conn, state)
					s.busy.note(conn, state)
				}
				s.welcomes = test.welcomes
				ctx, drain := context.WithCancel(t.Context())
				defer drain()
				var running sync.WaitGroup
				running.Go(func() {
					if err := s.serve(ctx); err != nil {
						t.Error(err)
					}
				})
				running.Go(func() { s.drainAfter(ctx) })
				answered := 0
				for range 100 {
					conn, err := l.Dial(t.Context(), "", "")
					if err != nil {
						break
					}
					if answered == 0 {
						time.AfterFunc(rangeTook/2, drain)
					}
					if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
						t.Fatal(err)
					}
					if send(t, conn, "") != http.StatusNoContent {
						t.Error("a range is not answered")
					}
					answered++
					_ = conn.Close() // a pipe's is nil
				}
				if answered != test.ranges {
					t.Errorf("%d ranges are answered, want %d", answered, test.ranges)
				}
				running.Wait()
			})
		})
	}
}

func TestDrainOfAnIdleServerDoesNotWait(t *testing.T) {
	var busy busyConns
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		busy.awaitPulls(t.Context(), time.Minute)
		a, b := net.Pipe()
		busy.note(a, http.StateActive)
		busy.note(a, http.StateIdle)
		busy.note(b, http.StateClosed)
		pass(comeBack)
		busy.awaitPulls(t.Context(), time.Minute)
		if took := time.Since(began); took != comeBack {
			t.Errorf("it waits for %v", took-comeBack)
		}
	})
}
