package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// restartClients is how many clients pull while Larder is restarted; restarts is how often it is.
const (
	restartClients = 32
	restarts       = 3
)

// The test stands for systemd: it holds the socket, and starts one process after the other with it.
func TestRestartWithSocketActivationRefusesNoConnection(t *testing.T) {
	t.Parallel()
	s := startStack(t)
	if err := s.larder.stop(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	manager := newServiceManager(t)
	s.listen = manager.listener.Addr().String()
	larder := manager.start(t, s)

	ctx, stop := context.WithCancel(t.Context())
	var pulls atomic.Int64
	var clients sync.WaitGroup
	for range restartClients {
		clients.Go(func() {
			for ctx.Err() == nil {
				if err := s.pullBlob(ctx); err != nil && ctx.Err() == nil {
					t.Errorf("a client during a restart: %v", err)
					return
				}
				pulls.Add(1)
			}
		})
	}
	for range restarts {
		awaitCount(t, &pulls, pulls.Load()+2*restartClients)
		if err := larder.stop(syscall.SIGTERM); err != nil {
			t.Errorf("larder was told to end: %v", err)
		}
		manager.requireTold(t, "STOPPING=1")
		larder = manager.start(t, s)
	}
	awaitCount(t, &pulls, pulls.Load()+2*restartClients)
	stop()
	clients.Wait()
}

// pullBlob pulls one layer on its own connection, as a new client would.
func (s *stack) pullBlob(ctx context.Context) error {
	blob := s.ecr.Image.Blobs[0]
	req, err := http.NewRequestWithContext(ctx, http.MethodGet,
		fmt.Sprintf("http://%s/v2/%s/%s/blobs/%s", s.listen, s.ecr.Host, imageRepository, blob.Digest), nil)
	if err != nil {
		return err
	}
	resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	n, err := io.Copy(io.Discard, resp.Body)
	if err == nil && (resp.StatusCode != http.StatusOK || n != blob.Size) {
		err = fmt.Errorf("%s with %d bytes, want %d", resp.Status, n, blob.Size)
	}
	return err
}

// awaitCount returns once a counter has reached least.
func awaitCount(t *testing.T, count *atomic.Int64, least int64) {
	t.Helper()
	deadline, cancel := context.WithTimeout(t.Context(), clientTimeout)
	defer cancel()
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for count.Load() < least {
		select {
		case <-tick.C:
		case <-deadline.Done():
			t.Fatalf("%d pulls, want %d", count.Load(), least)
		}
		if t.Failed() {
			t.FailNow()
		}
	}
}

// A serviceManager opens a socket for its service, and receives its notices.
type serviceManager struct {
	listener *net.TCPListener
	file     *os.File // of the listener
	notify   *net.UnixConn
}

func newServiceManager(t *testing.T) *serviceManager {
	t.Helper()
	return newServiceManagerAt(t, "127.0.0.1:0")
}

// newServiceManagerAt is newServiceManager with a given address for clients.
func newServiceManagerAt(t *testing.T, address string) *serviceManager {
	t.Helper()
	at, err := net.ResolveTCPAddr("tcp4", address)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.ListenTCP("tcp4", at)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	file, err := l.File()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = file.Close() })
	notify, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram", Name: filepath.Join(shortTempDir(t), "notify")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = notify.Close() })
	return &serviceManager{l, file, notify}
}

// start starts Larder with the socket, and returns when Larder tells that it is ready.
func (m *serviceManager) start(t *testing.T, s *stack) *process {
	t.Helper()
	cmd := s.larderCommand(t)
	// LISTEN_PID must be the id of the process, which it has only once it runs.
	wrapped := exec.Command("/bin/sh", append([]string{"-c", `LISTEN_PID=$$ exec "$@"`, "sh"}, cmd.Args...)...)
	wrapped.Env = append(cmd.Env, "LISTEN_FDS=1", "LISTEN_FDNAMES=clients", "NOTIFY_SOCKET="+m.notify.LocalAddr().String())
	wrapped.ExtraFiles = []*os.File{m.file}
	p := start(t, wrapped)
	m.requireTold(t, "READY=1")
	return p
}

// requireTold waits for a notice of the service.
func (m *serviceManager) requireTold(t *testing.T, want string) {
	t.Helper()
	deadline, _ := t.Deadline()
	buf := make([]byte, 4096)
	for {
		if err := m.notify.SetReadDeadline(deadline); err != nil {
			t.Fatal(err)
		}
		n, err := m.notify.Read(buf)
		if err != nil {
			t.Fatalf("waiting for %s: %v", want, errors.Join(err, t.Context().Err()))
		}
		if strings.Contains(string(buf[:n]), want) {
			return
		}
	}
}
