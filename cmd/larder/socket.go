package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
)

// socketPath is where the daemon of a cache folder answers commands.
func socketPath(cacheDir string) string { return filepath.Join(cacheDir, "larder.sock") }

// maxSocketPath is the longest path in bytes that a Unix socket can have
// (unix(7): sun_path has 108, with a zero at the end).
const maxSocketPath = 107

// listenUnix makes the socket, in place of what a process that was killed left
// behind: the caller holds the folder's lock, so no other one can be using it.
// Closing the listener removes it.
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
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}
