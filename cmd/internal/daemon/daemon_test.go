package daemon

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/larder-registry/larder/config"
)

// patience is how long a test waits for what should come at once, on a machine that is busy with other tests.
const patience = 30 * time.Second

func TestDrainEndsRunningCommands(t *testing.T) {
	ctx, drain := context.WithCancel(t.Context())
	defer drain()
	h := until(ctx, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		drain()
		select {
		case <-r.Context().Done():
		case <-time.After(patience):
			t.Errorf("the command still runs %v after the drain began", patience)
		}
	}))
	h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodPost, "/api/v1/scrub", http.NoBody))
}

func TestOnlyAddressesBeyondLoopbackAreExposed(t *testing.T) {
	for address, want := range map[string]bool{
		"127.0.0.1:0": false,
		"127.8.8.8:0": false,
		"localhost:0": false,
		":0":          true,
		"0.0.0.0:0":   true,
	} {
		l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		if got := isExposed(l.Addr()); got != want {
			t.Errorf("%s, which is %s: exposed %t, want %t", address, l.Addr(), got, want)
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}
	if isExposed(&net.UnixAddr{Name: "/run/larder.sock", Net: "unix"}) {
		t.Error("a Unix socket is of this machine")
	}
}

func TestFailedStartReleasesTheFolder(t *testing.T) {
	taken, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	cfg, err := config.Load(writeConfig(t, "listen: 127.0.0.1:0\nadmin: "+taken.Addr().String()+"\ncache: {dir: cache, min_free: 0}\n"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := New(t.Context(), cfg, Options{}); err == nil || !strings.HasPrefix(err.Error(), "listen for admin: ") {
		t.Fatalf("got %v", err)
	}
	cfg.Admin = ""
	d, err := New(t.Context(), cfg, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
}
