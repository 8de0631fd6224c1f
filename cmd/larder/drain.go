package main

import (
	"context"
	"net"
	"net/http"
	"sync"
	"time"
)

// drain bounds how long running bodies may go on after SIGTERM. Kubernetes kills
// after 30 s unless told otherwise.
const drain = 25 * time.Second

// maxSilence is how long a client that has connected may take, while the server
// ends, to say what it wants.
const maxSilence = 2 * time.Second

// newcomers are the connections on which no request has begun. [http.Server]
// closes these without an answer when it is shut down, though their clients may
// have written a request already. It is safe for concurrent use.
type newcomers struct {
	conns sync.Map // of net.Conn
}

// note is an [http.Server.ConnState].
func (n *newcomers) note(conn net.Conn, state http.ConnState) {
	if state == http.StateNew {
		n.conns.Store(conn, nil)
	} else {
		n.conns.Delete(conn)
	}
}

func (n *newcomers) none() bool {
	none := true
	n.conns.Range(func(any, any) bool {
		none = false
		return false
	})
	return none
}

// shutDown ends a server so that everyone who got a connection gets an answer:
// no more are accepted, who has one may ask once more, and then bodies may go on
// until ctx ends. accepting is closed when the server has left its listener.
func shutDown(ctx context.Context, server *http.Server, l net.Listener, accepting <-chan struct{}, n *newcomers) error {
	server.SetKeepAlivesEnabled(false)
	_ = l.Close() // the server says what comes of it
	<-accepting
	silent, cancel := context.WithTimeout(ctx, maxSilence)
	defer cancel()
	for !n.none() && sleep(silent, 5*time.Millisecond) {
		continue
	}
	if err := server.Shutdown(ctx); err != nil {
		_ = server.Close() // the error is that of the connections it closes
		return err
	}
	return nil
}
