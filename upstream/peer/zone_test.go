package peer_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/larder-registry/larder/upstream"
	"github.com/larder-registry/larder/upstream/offline"
	"github.com/larder-registry/larder/upstream/peer"
	"github.com/larder-registry/larder/upstream/peer/members"
	"github.com/larder-registry/larder/upstream/upstreamtest"
)

const host = "registry.example.com"

// zone is some nodes in memory, without TLS, whose caches are the simplest that there can be.
type zone struct {
	blob   []byte
	digest digest.Digest
	took   time.Duration // before the upstream's first byte
	asked  atomic.Int32  // the upstream, for the blob

	mu    sync.Mutex // guards what follows
	nodes map[string]*node
}

// node is a node of a zone. It knows the others by its own list.
type node struct {
	zone  *zone
	at    netip.AddrPort
	in    *upstreamtest.Pipes
	peers *peer.Peers
	log   upstreamtest.Log

	place   string      // the name of its zone
	span    bool        // it shares with all zones
	offline atomic.Bool // its upstream is declared offline
	cut     atomic.Bool // it does not reach the upstream
	drains  atomic.Bool
	tried   atomic.Int32 // to ask the upstream

	mu    sync.Mutex // guards what follows
	known []members.Node
	fill  *filling // nil until the blob is asked for
	full  bool
}

func newZone(n int) *zone {
	z := &zone{blob: bytes.Repeat([]byte("larder"), 10_000), nodes: make(map[string]*node)}
	z.digest = digest.FromBytes(z.blob)
	for i := range n {
		z.nodes[address(i).String()] = &node{zone: z, at: address(i)}
	}
	return z
}

func address(i int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}), 5002)
}

// start starts all nodes, which know each other.
func (z *zone) start(t *testing.T) {
	t.Helper()
	for i := range len(z.nodes) {
		n := z.node(i)
		for j := range len(z.nodes) {
			n.known = append(n.known, members.Node{Name: strconv.Itoa(j), Content: address(j), Zone: z.node(j).place, Self: i == j})
		}
		in := upstreamtest.NewPipes()
		n.in = in
		var err error
		n.peers, err = peer.New(peer.Options{Cluster: n, Dial: z.dial, Span: n.span, Log: n.log.Logger()})
		if err != nil {
			t.Fatal(err)
		}
		server := &http.Server{Handler: n.peers.Handler(peer.Answers{Asked: n.answers(1), Passed: n.answers(2), Has: n.has}), ReadHeaderTimeout: time.Hour}
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			_ = server.Serve(in) // until it is closed
		}()
		t.Cleanup(func() {
			err := errors.Join(n.peers.Close(), server.Close())
			if <-ended; err != nil {
				t.Error(err)
			}
		})
	}
}

func (z *zone) node(i int) *node { return z.nodes[address(i).String()] }

func (z *zone) dial(ctx context.Context, network, at string) (net.Conn, error) {
	z.mu.Lock()
	n := z.nodes[at]
	z.mu.Unlock()
	if n == nil {
		return nil, errors.New("nobody is there")
	}
	return n.in.Dial(ctx, network, at)
}

// All is for peer.Cluster.
func (n *node) All() []members.Node {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.known
}

// Self is for peer.Cluster.
func (n *node) Self() members.Node {
	return members.Node{Content: n.at, Zone: n.place, Draining: n.drains.Load(), Self: true}
}

// knows sets which nodes a node knows.
func (n *node) knows(some ...int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.known = nil
	for _, i := range some {
		other := n.zone.node(i)
		n.known = append(n.known, members.Node{Name: strconv.Itoa(i), Content: address(i), Zone: other.place, Draining: other.drains.Load(), Self: address(i) == n.at})
	}
}

func (n *node) has(digest.Digest) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.fill != nil
}

// source is the upstream that the node shares with others.
func (n *node) source(hops int) *peer.Source {
	return n.peers.Source(peer.Settings{Host: host, Registry: registry{n}, OpenBlob: n.open, Offline: n.offline.Load, Hops: hops, Fresh: time.Minute})
}

// filling is a fetch of the blob.
type filling struct {
	done chan struct{}
	b    []byte
	err  error
}

// get returns the blob, which is fetched once for all that ask.
func (n *node) get(ctx context.Context, hops int) ([]byte, error) {
	n.mu.Lock()
	f, own := n.fill, n.fill == nil
	if own {
		f = &filling{done: make(chan struct{})}
		n.fill = f
	}
	n.mu.Unlock()
	if own {
		if f.b, f.err = n.fetch(context.WithoutCancel(ctx), hops); f.err != nil {
			n.mu.Lock()
			n.fill = nil
			n.mu.Unlock()
		}
		close(f.done)
	}
	<-f.done
	return f.b, f.err
}

func (n *node) fetch(ctx context.Context, hops int) ([]byte, error) {
	content, err := n.source(hops).OpenBlob(ctx, "team/app", n.zone.digest, upstream.Range{Len: int64(len(n.zone.blob))})
	if err != nil {
		return nil, err
	}
	defer content.Body.Close()
	b, err := io.ReadAll(content.Body)
	if digest.FromBytes(b) != n.zone.digest && err == nil {
		err = errors.New("wrong bytes")
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.full = err == nil
	return b, err
}

// answers answers as a proxy does.
func (n *node) answers(hops int) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "/manifests/") {
			desc, raw, err := n.source(hops).Manifest(r.Context(), "team/app", r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:], false)
			if err != nil {
				w.WriteHeader(http.StatusBadGateway)
				return
			}
			w.Header().Set("Content-Type", desc.MediaType)
			w.Header().Set("Docker-Content-Digest", desc.Digest.String())
			_, _ = w.Write(raw)
			return
		}
		n.mu.Lock()
		full := n.full
		n.mu.Unlock()
		b, err := n.get(r.Context(), hops)
		if err != nil {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		w.Header().Set("X-Cache", "MISS")
		if full {
			w.Header().Set("X-Cache", "HIT")
		}
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(b))
	})
}

var errCut = errors.New("the network is unreachable")

// reach reaches the upstream, or returns an error.
func (n *node) reach(ctx context.Context) error {
	if n.offline.Load() {
		return &offline.Error{Host: host}
	}
	n.tried.Add(1)
	if n.cut.Load() {
		return errCut
	}
	n.zone.asked.Add(1)
	select {
	case <-time.After(n.zone.took):
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}

// open is the upstream.
func (n *node) open(ctx context.Context, _ string, _ digest.Digest, part upstream.Range) (upstream.Content, error) {
	if err := n.reach(ctx); err != nil {
		return upstream.Content{}, err
	}
	z := n.zone
	body := bytes.NewReader(z.blob[part.Off:min(part.Off+part.Len, int64(len(z.blob)))])
	return upstream.Content{Body: io.NopCloser(body), Size: int64(len(z.blob))}, nil
}

// registry is the upstream's manifests: the blob.
type registry struct{ node *node }

func (r registry) Manifest(ctx context.Context, _, _ string, _ bool) (ocispec.Descriptor, []byte, error) {
	if err := r.node.reach(ctx); err != nil {
		return ocispec.Descriptor{}, nil, err
	}
	z := r.node.zone
	return ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: z.digest, Size: int64(len(z.blob))}, z.blob, nil
}

func (registry) BlobSize(context.Context, string, digest.Digest) (int64, error) { return -1, nil }

func (registry) List(context.Context, string, string, url.Values) (http.Header, []byte, error) {
	return nil, nil, fmt.Errorf("there are no lists")
}

// owner returns the numbers of the blob's owner and of those that take its place, of n nodes.
func (z *zone) owner() []int {
	var order []int
	left := make(map[int]bool)
	for i := range len(z.nodes) {
		left[i] = true
	}
	for len(left) > 0 {
		var addresses []string
		var numbers []int
		for i := range len(z.nodes) {
			if left[i] {
				addresses, numbers = append(addresses, address(i).String()), append(numbers, i)
			}
		}
		best := ownerOf(z.digest.String(), addresses)
		order = append(order, numbers[best])
		delete(left, numbers[best])
	}
	return order
}
