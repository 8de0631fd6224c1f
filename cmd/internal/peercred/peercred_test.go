package peercred_test

import (
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/larder-registry/larder/cmd/internal/peercred"
)

func TestPeerOfBothEndsIsThisProcess(t *testing.T) {
	client, server := connect(t)
	want := peercred.Peer{PID: os.Getpid(), UID: os.Geteuid()}
	for end, conn := range map[string]*net.UnixConn{"client": client, "server": server} {
		if peer, err := peercred.Of(conn); err != nil || peer != want {
			t.Errorf("the peer of the %s is %+v, %v, want %+v", end, peer, err, want)
		}
	}
}

func TestClosedConnectionHasNoPeer(t *testing.T) {
	client, _ := connect(t)
	client.Close()
	if peer, err := peercred.Of(client); err == nil {
		t.Errorf("a closed connection has the peer %+v", peer)
	}
}

// connect returns both ends of a connection.
func connect(t *testing.T) (client, server *net.UnixConn) {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "unix", filepath.Join(t.TempDir(), "socket"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	dialled, err := new(net.Dialer).DialContext(t.Context(), "unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dialled.Close() })
	accepted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { accepted.Close() })
	return dialled.(*net.UnixConn), accepted.(*net.UnixConn)
}
