package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/cmd/internal/daemon/share"
	"github.com/larder-registry/larder/upstream/ecrtest"
	"github.com/larder-registry/larder/upstream/peer/ring"
	"github.com/larder-registry/larder/upstream/peer/tree"
)

const (
	// zoneTimeout is how long the nodes of a cluster may take to be one again, whatever has happened to them.
	zoneTimeout = time.Minute
	// upstreamConnection is what the upstream sends on each connection, in bytes a second: 400 Mb/s.
	upstreamConnection = 50 << 20
)

// A fleet is the nodes of a cluster, each a process with a loopback address of its own, in front of one fake ECR. Tests
// with one are not parallel, and run where nothing else does: a node that gets no processor for 250 ms is passed by, as a
// hung one is, and its bytes are fetched again.
type fleet struct {
	ecr     *fakeECR
	network string // the first three bytes of the nodes' addresses
	keyFile string
	nodes   []*stack
	bad     []string       // where nodes that do not behave give content; they come after the others
	images  int            // how many were added
	relays  map[int]*relay // of the nodes that others reach through one
}

// newFleet returns a cluster that has no node yet.
func newFleet(t testing.TB) *fleet {
	t.Helper()
	if os.Getenv("LARDER_QUIET") == "" {
		t.Skip("nodes need processors that nothing else takes: run this test alone, with LARDER_QUIET=1")
	}
	f := &fleet{ecr: startFakeECR(t), keyFile: filepath.Join(t.TempDir(), "peers.key"), network: loopbackNetwork(t), relays: make(map[int]*relay)}
	writeFile(t, f.keyFile, ring.NewKey().Encode()+"\n")
	return f
}

// loopbackNetwork returns the first three bytes of addresses that no other test has. It skips the test on systems that
// have one loopback address only.
func loopbackNetwork(t testing.TB) string {
	t.Helper()
	for range 100 {
		network := fmt.Sprintf("127.%d.%d", 1+rand.IntN(254), rand.IntN(256))
		lock, err := new(net.ListenConfig).Listen(t.Context(), "tcp4", network+".250:9")
		switch {
		case err == nil:
			t.Cleanup(func() { _ = lock.Close() })
			return network
		case strings.Contains(err.Error(), "assign requested address"):
			t.Skipf("this system has one loopback address only: %v", err)
		}
	}
	t.Fatal("no loopback network is free")
	return ""
}

// address returns a port of a node, which is counted from 0.
func (f *fleet) address(node, port int) string {
	return fmt.Sprintf("%s:%d", f.host(node), port)
}

func (f *fleet) host(node int) string { return fmt.Sprintf("%s.%d", f.network, node+1) }

// join are the nodes that all join: the first two, so that one of them may be ill.
func (f *fleet) join() (some []string) {
	for i := range 2 {
		if f.relays[i] != nil {
			i += relayed
		}
		some = append(some, f.address(i, portGossip))
	}
	return some
}

// layersAtOnce is how many layers containerd pulls at the same time, unless it is configured otherwise.
const layersAtOnce = 3

// Ports of each node.
const (
	portClients = 5000
	portAdmin   = 5001
	portContent = 5002
	portGossip  = 5003
)

// add configures one more node, which does not run yet. more are further keys of peers.
func (f *fleet) add(t testing.TB, zone, more string) *stack {
	t.Helper()
	i := len(f.nodes)
	s := newStackAt(t, f.address(i, portClients), f.address(i, portAdmin), fmt.Sprintf(`default_upstream: %[1]s
upstreams:
  - host: %[1]s
    endpoint: %[2]s
    ecr: {api_endpoint: %[2]s}
peers:
  listen: %[3]s
  join: [%[4]s]
  key_file: %[5]s
  zone: %[6]s
%[7]s`, f.ecr.Host, f.ecr.Endpoint, f.address(i, portContent), strings.Join(f.join(), ", "), f.keyFile, zone, more))
	s.ecr = f.ecr
	f.nodes = append(f.nodes, s)
	return s
}

// start starts n nodes of one zone at once, and waits until all know each other.
func (f *fleet) start(t testing.TB, n int) {
	t.Helper()
	for range n {
		f.add(t, "a", "")
	}
	f.startAll(t)
}

// startAll starts all nodes at once, and waits until all know each other.
func (f *fleet) startAll(t testing.TB) {
	t.Helper()
	for _, s := range f.nodes {
		s.larder = start(t, s.larderCommand(t))
	}
	t.Cleanup(func() { f.each(func(s *stack) { _ = s.larder.stop(syscall.SIGTERM) }) })
	f.awaitNodes(t, len(f.nodes))
}

// each does something with all nodes at once.
func (f *fleet) each(do func(s *stack)) {
	var all sync.WaitGroup
	for _, s := range f.nodes {
		all.Go(func() { do(s) })
	}
	all.Wait()
}

// owner returns the node that owns a blob while all run.
func (f *fleet) owner(blob digest.Digest) int {
	var places []tree.Place
	for i := range f.nodes {
		places = append(places, tree.PlaceOf(f.content(i)))
	}
	for _, address := range f.bad {
		places = append(places, tree.PlaceOf(address))
	}
	return tree.Owners(blob.String(), places, 1)[0]
}

// content is where a node gives content to others, as they know it.
func (f *fleet) content(node int) string {
	if f.relays[node] != nil {
		return f.address(node+relayed, portContent)
	}
	return f.address(node, portContent)
}

// awaitNodes waits until all nodes are ready and know so many nodes. It returns how long that took.
func (f *fleet) awaitNodes(t testing.TB, n int) time.Duration {
	t.Helper()
	began := time.Now()
	for _, s := range f.nodes {
		s.awaitReady(t)
	}
	awaitPeers(t, f.nodes, n)
	return time.Since(began)
}

// awaitPeers waits until some nodes know so many nodes, themselves among them.
func awaitPeers(t testing.TB, nodes []*stack, n int) {
	t.Helper()
	deadline, cancel := context.WithTimeout(t.Context(), zoneTimeout)
	defer cancel()
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for _, s := range nodes {
		for len(s.peers(t).Nodes) != n {
			select {
			case <-tick.C:
			case <-deadline.Done():
				t.Fatalf("the node %s does not know %d nodes after %v: %+v", s.listen, n, zoneTimeout, s.peers(t))
			}
		}
	}
}

// peers returns what a node knows of its cluster.
func (s *stack) peers(t testing.TB) (known share.Status) {
	t.Helper()
	client := http.Client{Timeout: clientTimeout, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(s.cache, "larder.sock"))
		},
	}}
	resp, err := client.Get("http://larder/api/v1/peers")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(&known); err != nil {
		t.Fatalf("%s: %v", resp.Status, err)
	}
	return known
}

// image puts one more image into the fake, whose layers have these sizes.
func (f *fleet) image(t testing.TB, layers ...int64) fleetImage {
	t.Helper()
	f.images++
	i := fleetImage{repository: "zone/app", tag: fmt.Sprint(f.images)}
	i.Added = f.ecr.add(t, plainImage{Repository: i.repository, Tag: i.tag, Seed: uint64(f.images) << 8, Layers: layers})
	for _, blob := range i.Blobs {
		i.bytes += blob.Size
	}
	return i
}

// A fleetImage is an image that the nodes' clients pull.
type fleetImage struct {
	*ecrtest.Added
	repository, tag string
	bytes           int64 // of its blobs
}

// layer is the digest of one of its layers, which come before the config.
func (i fleetImage) layer(n int) digest.Digest { return i.Blobs[n].Digest }

// pullOn has a client of each of some nodes pull an image at the same time. seen gets what they receive, if it is not
// nil.
func (f *fleet) pullOn(t *testing.T, nodes []*stack, image fleetImage, seen io.Writer) {
	t.Helper()
	var pulling sync.WaitGroup
	for _, s := range nodes {
		p := s.newPuller(t)
		p.seen, p.atOnce = seen, layersAtOnce
		pulling.Go(func() {
			defer p.client.CloseIdleConnections()
			got, err := p.pull(t.Context(), image.repository, image.tag)
			if err == nil && got != image.Root.Digest {
				err = fmt.Errorf("%s is %s, want %s", image.tag, got, image.Root.Digest)
			}
			if err != nil {
				t.Errorf("a client of the node %s: %v", s.listen, err)
			}
		})
	}
	pulling.Wait()
}

// sent returns how many bytes of an image's blobs the upstream has sent, and how many requests for its manifests it got.
func (f *fleet) sent(t testing.TB, image fleetImage, before ecrtest.Stats) (bytes int64, manifests int) {
	t.Helper()
	stats := f.ecr.stats(t)
	for _, blob := range image.Blobs {
		bytes += stats.Blobs[blob.Digest].Bytes
	}
	return bytes, stats.Requests[ecrtest.Manifest] - before.Requests[ecrtest.Manifest]
}

// silent returns how many questions to peers were not answered in time.
func (f *fleet) silent(t testing.TB) (n float64) {
	t.Helper()
	for _, s := range f.nodes {
		n += s.metric(t, `larder_peer_questions_total{result="silent"}`)
	}
	return n
}

// metric returns one value of a node's metrics, without which the test fails.
func (s *stack) metric(t testing.TB, series string) float64 {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+s.admin+"/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := (&http.Client{Transport: transport(t)}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, series+" "); ok {
			var n float64
			if _, err := fmt.Sscan(value, &n); err != nil {
				t.Fatalf("%s: %v", line, err)
			}
			return n
		}
	}
	t.Fatalf("%s is not in the metrics", series)
	return 0
}
