package daemon

import (
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/larder-registry/larder/config"
)

func TestSocketIsForOwnerAndGroupAndReplacesAStaleOne(t *testing.T) {
	path := filepath.Join(t.TempDir(), "larder.sock")
	if err := os.WriteFile(path, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	l, err := listenUnix(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Lstat(path)
	if err != nil || info.Mode() != fs.ModeSocket|0o660 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(path); err == nil {
		t.Error("the socket is left behind")
	}
}

func TestTooLongSocketPathIsExplained(t *testing.T) {
	dir := t.TempDir()
	longest := filepath.Join(dir, strings.Repeat("x", maxSocketPath-len(dir)-1))
	l, err := listenUnix(t.Context(), longest)
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	if _, err := listenUnix(t.Context(), longest+"x"); err == nil || !strings.Contains(err.Error(), "is 108 bytes long") {
		t.Errorf("got %v", err)
	}
}

func TestDialSaysWhyThereIsNoConnection(t *testing.T) {
	stale := t.TempDir()
	l, err := listenUnix(t.Context(), SocketPath(stale))
	if err != nil {
		t.Fatal(err)
	}
	conn, err := Dial(t.Context(), stale)
	if err != nil {
		t.Fatalf("while a daemon listens: %v", err)
	}
	conn.Close()
	l.(*net.UnixListener).SetUnlinkOnClose(false) // as of a process that was killed
	l.Close()
	for dir, want := range map[string]error{
		stale:                         ErrNotRunning,
		t.TempDir():                   ErrNotRunning,
		strings.Repeat("/folder", 20): ErrSocketPath,
	} {
		if _, err := Dial(t.Context(), dir); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", dir, err, want)
		}
	}
}

func TestDaemonServesWithoutItsSocket(t *testing.T) {
	dir := t.TempDir()
	socket := SocketPath(dir)
	if err := errors.Join(os.Mkdir(socket, 0o750), os.WriteFile(filepath.Join(socket, "file"), nil, 0o640)); err != nil { // which cannot be removed
		t.Fatal(err)
	}
	var log safeLog
	cfg := &config.Config{Listen: "127.0.0.1:0"}
	cfg.Cache.Dir = dir
	l, err := listen(t.Context(), cfg, false, slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	if l.clients == nil || l.commands != nil {
		t.Errorf("%+v", l)
	}
	if text := log.String(); strings.Count(text, "level=WARN") != 1 || !strings.Contains(text, "its socket cannot be made") {
		t.Errorf("the log says %q", text)
	}
	if err := l.close(); err != nil {
		t.Error(err)
	}
}
