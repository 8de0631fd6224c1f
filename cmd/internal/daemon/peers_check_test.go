package daemon

import (
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/larder-registry/larder/cmd/internal/daemon/share"
	"github.com/larder-registry/larder/config"
	"github.com/larder-registry/larder/upstream/peer/ring"
)

// problemsOf returns the problem with each node that a check has greeted.
func problemsOf(c share.Check) map[string]share.Problem {
	problems := make(map[string]share.Problem)
	for _, g := range c.Greeted {
		problems[g.Address] = g.Problem
	}
	return problems
}

func TestCheckOfPeersFindsWhatIsWrong(t *testing.T) {
	z := newZone(t)
	z.startAll(t, 3)
	self := z.nodes[1].daemon.sharing // it has joined the first one
	c := self.Check(t.Context())
	if len(c.Greeted) != 2 || c.Known != 2 || c.OfZone != 2 || c.Zone != "a" || c.Self == "" {
		t.Fatalf("the check of a healthy zone is %+v", c)
	}
	for _, g := range c.Greeted {
		if g.Problem != "" || !g.Member || g.Version != c.Version || g.Zone != "a" {
			t.Errorf("a healthy node: %+v", g)
		}
	}
	want := map[string]share.Problem{
		z.badPeer(t, func(l net.Listener) { l.Close() }): share.Unreachable,
		z.badPeer(t, z.proving(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Larder-Peer-Time", time.Now().Add(time.Minute).Format(time.RFC3339Nano))
		})): share.Clock,
		z.badPeer(t, z.proving(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Larder-Peer-Time", time.Now().Format(time.RFC3339Nano))
		})): share.UnknownTo,
		z.badPeer(t, z.proving(t, func(http.ResponseWriter, *http.Request) {})): share.Foreign,
		z.badPeer(t, func(l net.Listener) { // a later release
			secure := tls.NewListener(l, &tls.Config{
				NextProtos: []string{"larder-peer/9"},
				GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
					return nil, errors.New("it comes to no certificate")
				},
			})
			serveUntilClosed(secure)
		}): share.Foreign,
		z.badPeer(t, func(l net.Listener) {
			id, err := ring.NewIdentity()
			if err != nil {
				t.Error(err)
				return
			}
			serveUntilClosed(ring.Listen(l, ring.New(ring.NewKey()), id, z.nodes[0].daemon.log))
		}): share.Stranger,
	}
	z.awaitNodes(t, 3+len(want))
	found := problemsOf(self.Check(t.Context()))
	for address, problem := range want {
		if found[address] != problem {
			t.Errorf("the problem of %s is %q, want %q", address, found[address], problem)
		}
	}
}

// serveUntilClosed answers nothing that the other end could take for an answer.
func serveUntilClosed(l net.Listener) {
	server := &http.Server{ReadHeaderTimeout: time.Minute}
	_ = server.Serve(l)
	_ = server.Close()
}

// Nodes that run answer one that does not, by its configuration.
func TestCheckOfPeersByTheConfiguration(t *testing.T) {
	z := newZone(t)
	z.startAll(t, 1)
	status := z.nodes[0].daemon.sharing.Status()
	host, _, err := net.SplitHostPort(status.Nodes[0].Address)
	if err != nil {
		t.Fatal(err)
	}
	cfg := config.Peers{KeyFile: z.keyFile, Join: []string{net.JoinHostPort(host, "2"), "dns:no-such-name.invalid:5003"}, Zone: "a"}
	c, err := share.CheckConfigured(t.Context(), cfg)
	if err != nil || len(c.Greeted) != 1 || c.Greeted[0].Problem != share.Unreachable || len(c.Unresolved) != 1 {
		t.Errorf("the check is %+v, %v", c, err)
	}
	cfg.KeyFile = filepath.Join(t.TempDir(), "none")
	if _, err := share.CheckConfigured(t.Context(), cfg); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without a key: %v", err)
	}
}
