package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"
)

// SocketPath is where the daemon of a cache folder answers commands.
func SocketPath(cacheDir string) string { return filepath.Join(cacheDir, "larder.sock") }

// maxSocketPath is the longest path in bytes that a Unix socket can have
// (unix(7): sun_path has 108, with a zero at the end).
const maxSocketPath = 107

var (
	// ErrNotRunning is the error of Dial if no daemon has the folder.
	ErrNotRunning = errors.New("no daemon runs")
	// ErrSocketPath is the error of Dial if the folder's path is so long that a
	// daemon has no socket there. One may be running.
	ErrSocketPath = errors.New("the path is too long for a socket")
)

// Dial connects to the daemon of a cache folder, which answers /api/v1 there.
// Besides [ErrNotRunning] and [ErrSocketPath] the error may be [fs.ErrPermission], if
// the daemon is another user's.
func Dial(ctx context.Context, cacheDir string) (net.Conn, error) {
	path := SocketPath(cacheDir)
	if len(path) > maxSocketPath {
		return nil, fmt.Errorf("%s: %w", path, ErrSocketPath)
	}
	conn, err := new(net.Dialer).DialContext(ctx, "unix", path)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return nil, fmt.Errorf("%w: %w", ErrNotRunning, err)
	}
	return conn, err
}

// listenUnix opens the socket, in place of one that a killed process left behind:
// the caller has the folder's lock, so no other process uses it. Its owner and its group may
// connect; see [readersOnly]. Closing the listener removes it.
func listenUnix(ctx context.Context, path string) (net.Listener, error) {
	if len(path) > maxSocketPath {
		return nil, fmt.Errorf("%s is %d bytes long, and a socket's path may have %d: move the cache folder, or reach it by a shorter link",
			path, len(path), maxSocketPath)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	l, err := new(net.ListenConfig).Listen(ctx, "unix", path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o660); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}
