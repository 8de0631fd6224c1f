package daemon

import (
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// After its answer, the server sends bytes that nobody asked for, and that repeat a login.
func TestLinesOfLibrariesGoToTheLogWithoutSecrets(t *testing.T) {
	var lines safeLog
	restore := TakeOverStandardLog(slog.New(slog.NewTextHandler(&lines, &slog.HandlerOptions{Level: slog.LevelDebug})))
	before := log.Writer()
	t.Cleanup(restore)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	read := make(chan struct{})
	go func() {
		conn, err := l.Accept()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		_, _ = conn.Read(make([]byte, 4096))
		_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		<-read
		_, _ = io.WriteString(conn, "hunter2 and bWU6aHVudGVyMg== are wrong")
		_, _ = conn.Read(make([]byte, 1)) // until the client has left
	}()
	client := &http.Client{Transport: &http.Transport{}}
	resp, err := client.Get("http://" + l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	resp.Body.Close()
	close(read)
	const said = "Unsolicited response received on idle HTTP channel"
	for deadline := time.Now().Add(time.Minute); !strings.Contains(lines.String(), said); <-time.After(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the log says %q", lines.String())
		}
	}
	library := log.Default()
	library.Printf("traces export: Post %q: no", "http://me:hunter2@collector.test/v1/traces?key=hunter2")
	library.Print(strings.Repeat("long ", 10_000))
	text := lines.String()
	if strings.Contains(text, "hunter2") || strings.Contains(text, "bWU6") {
		t.Errorf("a secret is in the log: %s", text)
	}
	if strings.Count(text, "\n") != 3 || strings.Count(text, "level=DEBUG") != 3 || len(text) > 3*maxLibraryLine {
		t.Errorf("%d bytes: %s", len(text), text)
	}
	restore()
	if log.Writer() == before {
		t.Error("package log still writes to the log")
	}
}
