package ring

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"sync"
	"time"
)

const (
	// proofTimeout is how long a connection may take to prove the key. A handshake takes some
	// milliseconds; a thousand nodes that connect at once share the processors.
	proofTimeout = 5 * time.Second
	// maxUnproven bounds the connections that have not proved the key, and maxUnprovenOfOne those
	// of one address, so that a stranger cannot keep the nodes out.
	maxUnproven      = 1024
	maxUnprovenOfOne = 64
)

// Listener accepts connections of nodes that have a key of the ring, and closes all others. It is a
// net.Listener.
type Listener struct {
	inner  net.Listener
	ring   *Ring
	config *tls.Config
	log    *slog.Logger

	proved  chan net.Conn
	ctx     context.Context // of the proofs
	end     context.CancelFunc
	running sync.WaitGroup

	mu       sync.Mutex // guards what follows
	unproven map[string]int
	all      int   // their sum
	err      error // of inner
}

// Listen begins to accept the connections of inner, which Close closes too. Strangers are logged, at
// level debug.
func Listen(inner net.Listener, ring *Ring, id Identity, log *slog.Logger) *Listener {
	ctx, end := context.WithCancel(context.Background())
	l := &Listener{
		inner: inner,
		ring:  ring,
		config: &tls.Config{
			MinVersion:             tls.VersionTLS13,
			Certificates:           []tls.Certificate{id.cert},
			NextProtos:             []string{protocol},
			SessionTicketsDisabled: true, // each connection has a proof of its own
		},
		log:      log,
		proved:   make(chan net.Conn),
		ctx:      ctx,
		end:      end,
		unproven: make(map[string]int),
	}
	l.running.Go(l.accept)
	return l
}

// accept accepts until the listener is closed.
func (l *Listener) accept() {
	defer l.end() // Accept returns
	for {
		raw, err := l.inner.Accept()
		if err != nil {
			var temporary interface{ Temporary() bool }
			if errors.As(err, &temporary) && temporary.Temporary() && l.pause() {
				continue
			}
			l.mu.Lock()
			l.err = err
			l.mu.Unlock()
			return
		}
		from := hostOf(raw)
		if !l.enter(from) {
			_ = raw.Close() // of a connection that nothing was sent on
			continue
		}
		l.running.Go(func() {
			defer l.leave(from)
			l.prove(raw)
		})
	}
}

// proved is a connection that net/http takes for any other: it would end one of TLS whose protocol it does not
// know.
type proved struct{ *tls.Conn }

// pause waits before the next try, as the process has too many open files. It returns false if the
// listener was closed meanwhile.
func (l *Listener) pause() bool {
	select {
	case <-time.After(50 * time.Millisecond):
		return true
	case <-l.ctx.Done():
		return false
	}
}

// prove passes a connection on when it has proved the key, and closes any other.
func (l *Listener) prove(raw net.Conn) {
	ctx, cancel := context.WithTimeout(l.ctx, proofTimeout)
	defer cancel()
	conn := tls.Server(raw, l.config)
	if err := within(ctx, conn, l.ring.proveAsServer); err != nil {
		_ = raw.Close() // it is a stranger's
		if l.ctx.Err() == nil {
			l.log.Debug("a connection to the port for peers was refused", "from", raw.RemoteAddr(), "error", err)
		}
		return
	}
	select {
	case l.proved <- proved{conn}:
	case <-l.ctx.Done():
		_ = raw.Close() // nobody has it
	}
}

// enter counts a connection that has not proved the key. It returns false if there are too many.
func (l *Listener) enter(from string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.all >= maxUnproven || l.unproven[from] >= maxUnprovenOfOne {
		return false
	}
	l.all++
	l.unproven[from]++
	return true
}

func (l *Listener) leave(from string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all--
	if l.unproven[from]--; l.unproven[from] == 0 {
		delete(l.unproven, from)
	}
}

// Accept returns the next connection of a node that has the key.
func (l *Listener) Accept() (net.Conn, error) {
	select {
	case conn := <-l.proved:
		return conn, nil
	case <-l.ctx.Done():
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.err != nil {
			return nil, l.err
		}
		return nil, net.ErrClosed
	}
}

// Close ends the listener. Connections that Accept has returned stay open.
func (l *Listener) Close() error {
	err := l.inner.Close()
	l.end()
	l.running.Wait()
	return err
}

// Addr is that of the inner listener.
func (l *Listener) Addr() net.Addr { return l.inner.Addr() }

func hostOf(conn net.Conn) string {
	at := conn.RemoteAddr().String()
	if host, _, err := net.SplitHostPort(at); err == nil {
		return host
	}
	return at
}
