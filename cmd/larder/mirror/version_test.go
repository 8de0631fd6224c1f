package mirror

import (
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
)

func TestParseVersion(t *testing.T) {
	for text, want := range map[string]Version{
		"2.1.4": {2, 1}, "v1.7.24": {1, 7}, "1.6.20~ds1": {1, 6}, "2.2": {2, 2}, "2.3.0-rc.1": {2, 3}, "v2.0+unknown": {2, 0},
	} {
		if got, err := ParseVersion(text); err != nil || got != want {
			t.Errorf("ParseVersion(%q) = %v, %v, want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "2", "two", "2.x", "-1.2", "99999.1"} {
		if got, err := ParseVersion(text); err == nil {
			t.Errorf("ParseVersion(%q) = %v", text, got)
		}
	}
}

func TestAskVersion(t *testing.T) {
	message := protowire.AppendTag(nil, 2, protowire.BytesType)
	message = protowire.AppendString(message, "a revision")
	message = protowire.AppendTag(message, 1, protowire.BytesType)
	message = protowire.AppendString(message, "v2.1.4")
	for name, test := range map[string]struct {
		answer []byte
		want   Version
		err    string
	}{
		"an answer":   {message, Version{2, 1}, ""},
		"no message":  {nil, Version{}, "no message"},
		"no version":  {protowire.AppendString(protowire.AppendTag(nil, 2, protowire.BytesType), "x"), Version{}, "no version"},
		"nonsense":    {[]byte{0xff, 0xff}, Version{}, "ask containerd"},
		"a torn text": {message[:len(message)-1], Version{}, "ask containerd"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := AskVersion(t.Context(), serveVersion(t, test.answer))
			if test.err == "" && err != nil || test.err != "" && (err == nil || !strings.Contains(err.Error(), test.err)) {
				t.Errorf("error = %v, want %q", err, test.err)
			}
			if got != test.want {
				t.Errorf("version = %v, want %v", got, test.want)
			}
		})
	}
}

// serveVersion answers like containerd's gRPC API, and returns its socket.
func serveVersion(t *testing.T, answer []byte) string {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "c.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	var protocols http.Protocols
	protocols.SetUnencryptedHTTP2(true)
	server := &http.Server{Protocols: &protocols, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		question, err := io.ReadAll(r.Body)
		if err != nil || len(question) != grpcPrefix || r.URL.Path != "/containerd.services.version.v1.Version/Version" {
			t.Errorf("%s %q %v is not a call of gRPC with an empty message", r.URL.Path, question, err)
		}
		w.Header().Set("Content-Type", "application/grpc")
		w.Header().Set("Trailer", "Grpc-Status")
		if answer != nil {
			_, _ = w.Write(append([]byte{0, 0, 0, 0, byte(len(answer))}, answer...))
		}
		w.Header().Set("Grpc-Status", "0")
	})}
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Serve(l) }()
	t.Cleanup(func() { server.Close(); <-done })
	return socket
}
