package daemon

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/larder-registry/larder/cmd/internal/daemon/conns"
)

// Limits of what a client may make a server wait for or keep.
const (
	headerTimeout  = 10 * time.Second // for a request's header
	idleTimeout    = 3 * time.Minute  // between two requests on a connection
	maxHeaderBytes = 128 << 10        // a thousand ranges are some 30 kB
)

// server serves one listener, until it is drained.
type server struct {
	http      *http.Server
	listener  net.Listener
	drain     time.Duration // bounds how long answers may go on
	log       *slog.Logger
	silent    silentConns
	busy      busyConns
	welcomes  bool          // takes new connections while the drain begins
	accepting chan struct{} // closed when the server has left its listener
}

func newServer(l net.Listener, h http.Handler, drain time.Duration, log *slog.Logger) *server {
	s := &server{listener: l, drain: drain, log: log, accepting: make(chan struct{})}
	s.http = &http.Server{
		Handler:           h,
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		ConnState:         s.silent.note,
	}
	return s
}

// newTCPServer is newServer for a listener that clients reach over the network.
func newTCPServer(l *conns.Listener, h http.Handler, drain time.Duration, log *slog.Logger) *server {
	s := newServer(l, readBody(h, log), drain, log)
	s.http.ConnState = func(conn net.Conn, state http.ConnState) {
		s.silent.note(conn, state)
		s.busy.note(conn, state)
		l.Note(conn, state)
	}
	return s
}

// secure makes the server speak TLS on its listener. The bounds of connections and the limits
// of waiting hold as before: a handshake that does not end counts as a header that does not.
// The listener's own connections stay below TLS, so that each write has its deadline.
func (s *server) secure(config *tls.Config) { s.listener = tls.NewListener(s.listener, config) }

// serve accepts connections until the listener is closed. Before ctx ends that is
// an error.
func (s *server) serve(ctx context.Context) error {
	defer close(s.accepting)
	if err := s.http.Serve(s.listener); ctx.Err() == nil {
		return fmt.Errorf("serve on %s: %w", s.listener.Addr(), err)
	}
	return nil
}

// drainAfter waits until ctx ends, then shuts the server down, for which it may
// take as long as s.drain.
func (s *server) drainAfter(ctx context.Context) {
	<-ctx.Done()
	s.log.Info("draining", "address", s.listener.Addr(), "at_most", s.drain)
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.drain)
	defer cancel()
	if err := s.shutDown(bounded); err != nil {
		s.log.Warn("bodies were cut at the end of the drain", "address", s.listener.Addr())
	}
}

// shutDown ends the server so that every client that has a connection gets an
// answer: the server accepts no more connections, each open one may send one more
// request, and running answers may go on until ctx ends. A client that fetches a layer in ranges
// opens a connection for each of them from then on, so a server that welcomes them accepts
// connections for as long as answers run, and most of the drain's time at most.
func (s *server) shutDown(ctx context.Context) error {
	s.http.SetKeepAlivesEnabled(false)
	if s.welcomes {
		s.busy.awaitPulls(ctx, time.Duration(comeBackShare*float64(s.drain)))
	}
	_ = s.listener.Close() // Serve returns the error
	<-s.accepting
	s.silent.wait(ctx)
	if err := s.http.Shutdown(ctx); err != nil {
		_ = s.http.Close() // its error is about the connections it closes
		return err
	}
	return nil
}
