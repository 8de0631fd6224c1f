package ecrtest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"
)

// Running is a server that listens.
type Running struct {
	*Server
	Endpoint   string // of the registry and of the ECR API, such as http://127.0.0.1:41234
	StorageURL string // where redirects lead, such as http://localhost:41235

	registryAddr, storageAddr string

	mu   sync.Mutex // guards what follows; held while it starts and stops
	stop func()     // nil while nothing listens
}

// Start listens on free ports of the loopback address: the registry under the
// name 127.0.0.1, storage under localhost. Close ends it.
func Start(opts Options) (*Running, error) { return StartAt(opts, "127.0.0.1:0", "127.0.0.1:0") }

// StartAt is Start for a host:port for the registry, and one for storage. A
// redirect names storage by its host as given here, or by localhost for a
// loopback address.
func StartAt(opts Options, registry, storage string) (*Running, error) {
	host, _, err := net.SplitHostPort(storage)
	if err != nil {
		return nil, fmt.Errorf("reading the address of storage: %w", err)
	}
	if ip := net.ParseIP(host); ip != nil && ip.IsLoopback() {
		host = "localhost"
	}
	r := &Running{Server: New(opts), registryAddr: registry, storageAddr: storage}
	if err := r.Restart(); err != nil {
		return nil, err
	}
	_, port, err := net.SplitHostPort(r.storageAddr)
	if err != nil {
		r.Stop()
		return nil, fmt.Errorf("reading the address of storage: %w", err)
	}
	r.Endpoint = "http://" + r.registryAddr
	r.StorageURL = "http://" + net.JoinHostPort(host, port)
	r.SetStorageURL(r.StorageURL)
	return r, nil
}

func listen(addr string) (net.Listener, error) {
	var lc net.ListenConfig
	return lc.Listen(context.Background(), "tcp", addr)
}

// Restart listens again, on the same ports, after Stop. What the server holds,
// and the tokens and URLs it gave, outlive the pause.
func (r *Running) Restart() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stop != nil {
		return errors.New("starting the fake ECR: it is running")
	}
	registry, err := listen(r.registryAddr)
	if err != nil {
		return fmt.Errorf("starting the fake ECR's registry: %w", err)
	}
	storage, err := listen(r.storageAddr)
	if err != nil {
		return errors.Join(fmt.Errorf("starting the fake ECR's storage: %w", err), registry.Close())
	}
	r.registryAddr, r.storageAddr = registry.Addr().String(), storage.Addr().String()
	stopRegistry := serve(registry, r.Registry())
	stopStorage := serve(storage, r.Storage())
	r.stop = func() {
		stopRegistry()
		stopStorage()
	}
	return nil
}

// Stop makes the server dead: open connections are cut, new ones refused. It
// returns when no handler runs any more. Stopping what has stopped is nothing.
func (r *Running) Stop() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stop != nil {
		r.stop()
		r.stop = nil
	}
}

// Close is Stop, for good. It returns nil.
func (r *Running) Close() error {
	r.Stop()
	return nil
}

// readHeaderTimeout bounds how long a connection may take over a request.
const readHeaderTimeout = 30 * time.Second

// serve answers the connections of a listener until stop is called, which
// cuts them and waits for their handlers.
func serve(l net.Listener, h http.Handler) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var serving, conns sync.WaitGroup
	server := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: readHeaderTimeout,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ConnState: func(_ net.Conn, state http.ConnState) {
			switch state {
			case http.StateNew:
				conns.Add(1)
			case http.StateClosed:
				conns.Done()
			}
		},
	}
	serving.Go(func() {
		// It ends with the listener, and that is all that its error says.
		_ = server.Serve(l)
	})
	return func() {
		cancel()
		// First nothing new: Close would miss a connection that Serve just accepted.
		_ = l.Close()
		serving.Wait()
		_ = server.Close()
		conns.Wait()
	}
}
