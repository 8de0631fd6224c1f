// Package upstreamtest has what the tests of the packages below upstream, and of the daemon, share: a log that a test
// reads, connections without a network, the environment of AWS's SDK, and a check of errors.
package upstreamtest

import (
	"bytes"
	"log/slog"
	"strings"
	"sync"
	"testing"
)

// Log collects log lines. The zero Log is ready for use, and its methods may be called concurrently.
type Log struct {
	mu  sync.Mutex // guards what follows
	buf bytes.Buffer
}

// Write adds to the log.
func (l *Log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

// String returns everything that was logged.
func (l *Log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// Logger returns a logger that writes to the log as text.
func (l *Log) Logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

// WantLines checks that a text was logged n times, once on a line.
func (l *Log) WantLines(t *testing.T, text string, n int) {
	t.Helper()
	if got := strings.Count(l.String(), text); got != n {
		t.Errorf("logged %q %d times, want %d:\n%s", text, got, n, l)
	}
}
