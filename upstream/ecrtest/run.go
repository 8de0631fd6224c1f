package ecrtest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/larder-registry/larder/upstream/ecrtest/internal/sts"
)

// Running is a server that listens.
type Running struct {
	*Server
	Endpoint   string // of the registry and of the ECR API, such as http://127.0.0.1:41234
	StorageURL string // the target of redirects, such as http://localhost:41235

	secure                    *secure // nil without TLS
	registryAddr, storageAddr string

	mu   sync.Mutex // guards stop and the addresses; held while it starts and stops
	stop func()     // nil while nothing listens
}

// Start listens on free ports of the loopback address: the registry as 127.0.0.1,
// storage as localhost. Close ends it.
func Start(opts Options) (*Running, error) { return StartAt(opts, "127.0.0.1:0", "127.0.0.1:0") }

// StartAt is Start with a host:port for the registry and one for storage. Redirects
// name storage by this host, or as localhost if it is a loopback address. The certificate of a
// server with [Options.TLS] is for these hosts.
func StartAt(opts Options, registry, storage string) (*Running, error) {
	host, _, err := net.SplitHostPort(storage)
	if err != nil {
		return nil, fmt.Errorf("reading the address of storage: %w", err)
	}
	if ip := net.ParseIP(host); ip != nil && ip.IsLoopback() {
		host = "localhost"
	}
	registryHost, _, err := net.SplitHostPort(registry)
	if err != nil {
		return nil, fmt.Errorf("reading the address of the registry: %w", err)
	}
	r := &Running{Server: New(opts), registryAddr: registry, storageAddr: storage}
	if opts.TLS {
		if r.secure, err = newSecure(registryHost, host, r.Host(), "localhost"); err != nil {
			return nil, err
		}
	}
	if err := r.Restart(); err != nil {
		return nil, err
	}
	_, port, err := net.SplitHostPort(r.storageAddr)
	if err != nil {
		r.Stop()
		return nil, fmt.Errorf("reading the address of storage: %w", err)
	}
	r.Endpoint = r.secure.scheme() + r.registryAddr
	r.StorageURL = r.secure.scheme() + net.JoinHostPort(host, port)
	r.SetStorageURL(r.StorageURL)
	return r, nil
}

func listen(addr string) (net.Listener, error) {
	var lc net.ListenConfig
	return lc.Listen(context.Background(), "tcp", addr)
}

// Restart listens again after Stop, on the same ports. Images, tokens and signed URLs
// are as before. It returns an error if the server is running.
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
	stopRegistry := serve(r.secure.listener(registry), r.Registry())
	stopStorage := serve(r.secure.listener(storage), r.Storage())
	r.stop = func() {
		stopRegistry()
		stopStorage()
	}
	return nil
}

// Stop cuts open connections and refuses new ones. It returns when no handler runs
// any more. Stopping a stopped server does nothing.
func (r *Running) Stop() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stop != nil {
		r.stop()
		r.stop = nil
	}
}

// Close stops the server for good. It returns nil.
func (r *Running) Close() error {
	r.Stop()
	return nil
}

// readHeaderTimeout limits how long a connection may take to send the header of a
// request.
const readHeaderTimeout = 30 * time.Second

// serve answers the connections of a listener. stop cuts them and waits for their
// handlers.
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
		// Serve ends when the listener is closed; its error says only that.
		_ = server.Serve(l)
	})
	return func() {
		cancel()
		// The listener ends first: Close would miss a connection that Serve just accepted.
		_ = l.Close()
		serving.Wait()
		_ = server.Close()
		conns.Wait()
	}
}

// Environment returns variables with which the AWS SDK calls this server instead of
// AWS, and finds no profile and no credentials of the machine. [Key.Environment] and
// [Running.ContainerEnvironment] add credentials.
func (r *Running) Environment() map[string]string {
	return map[string]string{
		"AWS_ENDPOINT_URL_ECR":                   r.Endpoint,
		"AWS_ENDPOINT_URL_ECR_PUBLIC":            r.Endpoint,
		"AWS_ENDPOINT_URL_SIGNER":                r.Endpoint,
		"AWS_ENDPOINT_URL_STS":                   r.Endpoint,
		"AWS_EC2_METADATA_SERVICE_ENDPOINT":      r.Endpoint,
		"AWS_EC2_METADATA_DISABLED":              "true",
		"AWS_REGION":                             r.opts.Region,
		"AWS_CONFIG_FILE":                        os.DevNull,
		"AWS_SHARED_CREDENTIALS_FILE":            os.DevNull,
		"AWS_ENDPOINT_URL":                       "",
		"AWS_CA_BUNDLE":                          "",
		"AWS_PROFILE":                            "",
		"AWS_ACCESS_KEY_ID":                      "",
		"AWS_SECRET_ACCESS_KEY":                  "",
		"AWS_SESSION_TOKEN":                      "",
		"AWS_ROLE_ARN":                           "",
		"AWS_WEB_IDENTITY_TOKEN_FILE":            "",
		"AWS_CONTAINER_CREDENTIALS_FULL_URI":     "",
		"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "",
		"AWS_CONTAINER_AUTHORIZATION_TOKEN":      "",
		"AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": "",
	}
}

// ContainerEnvironment returns the variables of a container with a role, by EKS Pod
// Identity or ECS. Pod Identity can also have the authorization in a file: see
// [AWS.ContainerAuthorization]. The error is [fs.ErrNotExist] if there is no such role.
func (r *Running) ContainerEnvironment(role string) (map[string]string, error) {
	authorization, err := r.aws.ContainerAuthorization(role)
	if err != nil {
		return nil, err
	}
	return map[string]string{
		"AWS_CONTAINER_CREDENTIALS_FULL_URI": r.Endpoint + sts.ContainerPath,
		"AWS_CONTAINER_AUTHORIZATION_TOKEN":  authorization,
	}, nil
}
