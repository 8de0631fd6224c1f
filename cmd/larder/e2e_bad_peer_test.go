package main

import (
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/larder-registry/larder/deploy/deploytest"
	"github.com/larder-registry/larder/upstream/peer/members"
	"github.com/larder-registry/larder/upstream/peer/ring"
)

// badPeerCommand is the name under which this test binary is a node of a cluster that has the key and does not behave. Its
// argument is a badPeer in JSON.
const badPeerCommand = "bad-peer"

// A badPeer is what such a process does.
type badPeer struct {
	Content, Gossip string // addresses
	Join            string
	KeyFile         string
	Zone            string
	IsOlder         bool             // it speaks an older version of the protocol; otherwise it lies in each byte
	Sizes           map[string]int64 // of blobs, by their digests
}

// badPeerMain is the main function of that process. It returns when standard input ends.
func badPeerMain() {
	var p badPeer
	err := json.Unmarshal([]byte(os.Args[1]), &p)
	if err == nil {
		err = p.run(os.Stdin)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", badPeerCommand, err)
		os.Exit(1)
	}
}

func (p badPeer) run(stdin io.Reader) error {
	keys, err := ring.ReadKeys(p.KeyFile)
	if err != nil {
		return err
	}
	id, err := ring.NewIdentity()
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", p.Content)
	if err != nil {
		return err
	}
	log := slog.New(slog.DiscardHandler)
	secure := net.Listener(ring.Listen(l, ring.New(keys...), id, log))
	if p.IsOlder {
		secure = tls.NewListener(l, &tls.Config{
			NextProtos: []string{"larder-peer/0"},
			GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
				return nil, errors.New("it comes to no certificate")
			},
		})
	}
	content, gossip := netip.MustParseAddrPort(p.Content), netip.MustParseAddrPort(p.Gossip)
	m, err := members.Open(members.Options{Ring: ring.New(keys...), Bind: gossip, Content: content, Join: []string{p.Join}, Zone: p.Zone, Log: log})
	if err != nil {
		return err
	}
	server := &http.Server{Handler: http.HandlerFunc(p.lie), ReadHeaderTimeout: time.Minute, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelError)}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(secure) }()
	_, err = io.Copy(io.Discard, stdin)
	err = errors.Join(err, m.Close(), server.Close())
	if served := <-ended; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	return err
}

// lie answers as a node that has everything, and sends zeros.
func (p badPeer) lie(w http.ResponseWriter, r *http.Request) {
	reference := path.Base(r.URL.Path)
	size := p.Sizes[reference]
	w.Header().Set("Larder-Peer", p.Content)
	w.Header().Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
	w.Header().Set("Docker-Content-Digest", reference)
	w.Header().Set("Content-Length", strconv.FormatInt(size, 10))
	w.Header().Set("X-Cache", "HIT")
	if strings.Contains(r.URL.Path, "/blobs/") {
		w.Header().Set("Content-Range", fmt.Sprintf("bytes 0-%d/%d", size-1, size))
		w.WriteHeader(http.StatusPartialContent)
	}
	_, _ = w.Write(make([]byte, size)) // the node may have hung up
}

// addBad starts one more node of the cluster that does not behave, waits until the others know it, and returns its
// address and an image of which it owns a layer.
func (f *fleet) addBad(t *testing.T, isOlder bool) (address string, image fleetImage) {
	t.Helper()
	i := len(f.nodes)
	p := badPeer{
		Content: f.address(i, portContent), Gossip: f.address(i, portGossip), Join: f.address(0, portGossip),
		KeyFile: f.keyFile, Zone: "a", IsOlder: isOlder, Sizes: make(map[string]int64),
	}
	f.bad = append(f.bad, p.Content)
	for owns := false; !owns; {
		image = f.image(t, manyLayers()...)
		owns = slices.ContainsFunc(image.Blobs[:layersAtOnce], func(b ocispec.Descriptor) bool { return f.owner(b.Digest) == i })
	}
	for _, blob := range image.Blobs {
		p.Sizes[blob.Digest.String()] = blob.Size
	}
	arg, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(deploytest.Require(t, badPeerCommand), string(arg))
	cmd.Env = environ(t)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = stdin.Close() })
	start(t, cmd)
	awaitPeers(t, f.nodes, i+1)
	return p.Content, image
}

// A node of another version refuses each connection, so nobody waits for it.
func TestZoneRollsOutBesideANodeOfAnOlderVersion(t *testing.T) {
	f := newFleet(t)
	f.start(t, 7)
	f.ecr.limit(t, upstreamConnection)
	_, image := f.addBad(t, true)
	f.pullOn(t, f.nodes, image, nil)
	f.requireLittleTwice(t, image)
	if f.silent(t) == 0 {
		t.Error("nobody has asked the node of an older version")
	}
}

// Wrong bytes that a client was sent cannot be taken back: its pull breaks off before the end of the layer, and the next
// one succeeds, as the liar is not asked any more.
func TestZoneFindsOutALiarAndNamesIt(t *testing.T) {
	f := newFleet(t)
	f.start(t, 7)
	f.ecr.limit(t, upstreamConnection)
	liar, image := f.addBad(t, false)
	for _, s := range f.nodes {
		p := s.newPuller(t)
		p.atOnce = layersAtOnce
		broken := 0
		for {
			got, err := p.pull(t.Context(), image.repository, image.tag)
			if err == nil && got == image.Root.Digest {
				break
			}
			if broken++; broken > 3 || errors.Is(err, errWrongBytes) {
				t.Fatalf("a client of the node %s: %s, %v", s.listen, got, err)
			}
		}
		p.client.CloseIdleConnections()
	}
	f.requireLittleTwice(t, image)
	named := 0
	for _, s := range f.nodes {
		for _, a := range s.peers(t).Avoided {
			if a.Address == liar && a.Blob == "" && a.Lied {
				named++
			}
		}
	}
	t.Logf("%d of %d nodes avoid the liar", named, len(f.nodes))
	if named == 0 {
		t.Error("no node avoids the liar")
	}
}
