package daemon

// White-box, as server_test.go.

import (
	"bufio"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// testDrain is the drain of the tests' servers.
const testDrain = 20 * time.Second

// drained calls use in a bubble with a connection that the server has accepted, and a function that begins the drain.
func drained(t *testing.T, h http.HandlerFunc, use func(t *testing.T, conn net.Conn, drain func())) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		l := newPipes()
		s := newServer(l, h, testDrain, slog.New(slog.DiscardHandler))
		ctx, drain := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() {
			if err := s.serve(ctx); err != nil {
				t.Error(err)
			}
		})
		running.Go(func() { s.drainAfter(ctx) })
		client, server := net.Pipe()
		l.conns <- server
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
