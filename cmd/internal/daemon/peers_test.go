package daemon

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	dto "github.com/prometheus/client_model/go"

	"github.com/larder-registry/larder/cache"
	"github.com/larder-registry/larder/config"
	"github.com/larder-registry/larder/upstream/ecrtest"
	"github.com/larder-registry/larder/upstream/peer/ring"
)

// zone is some daemons in this process that share what they fetch from one fake ECR.
type zone struct {
	ecr     *ecrtest.Running
	keyFile string
	join    string // where the first one gossips
	place   string // the zone of those that are started
	more    string // further keys of their peers
	nodes   []*inside
	stops   []func()
	sizes   sync.Map // of blobs, by digest
}

// peerPatience is longer than a node's own: all nodes of a test share the processors, and those of other tests.
const peerPatience = 5 * time.Second

func newZone(t testing.TB) *zone {
	t.Helper()
	z := &zone{ecr: startECR(t), keyFile: filepath.Join(t.TempDir(), "peers.key"), join: "127.0.0.1:1", place: "a"}
	if err := os.WriteFile(z.keyFile, []byte(ring.NewKey().Encode()), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		var stopping sync.WaitGroup
		for _, stop := range z.stops {
			stopping.Go(stop)
		}
		stopping.Wait()
		awaitProbes(t)
	})
	return z
}

// probePatience is more than memberlist's longest probe takes: its interval of a second, eight times as long on a node
// that is slow itself.
const probePatience = 20 * time.Second

// awaitProbes waits for the last probes of memberlist, whose Shutdown does not.
func awaitProbes(t testing.TB) {
	t.Helper()
	var stacks []byte
	for began := time.Now(); time.Since(began) < probePatience; <-time.After(20 * time.Millisecond) {
		stacks = make([]byte, 4<<20)
		stacks = stacks[:runtime.Stack(stacks, true)]
		if !bytes.Contains(stacks, []byte("hashicorp/memberlist.")) {
			return
		}
	}
	t.Errorf("memberlist has goroutines %v after the last node ended:\n%s", probePatience, stacks)
}

// start starts one more node. more is the end of its configuration.
func (z *zone) start(t testing.TB, patience time.Duration, more string) (s *inside, stop func()) {
	t.Helper()
	peers := fmt.Sprintf("peers: {listen: 127.0.0.1:0, join: [%s], key_file: %q, zone: %q%s}\n", z.join, z.keyFile, z.place, z.more)
	cfg, err := config.Load(writeConfig(t, peers+configFor(z.ecr)+more))
	if err != nil {
		t.Fatal(err)
	}
	s, stop = serve(t, cfg, patience)
	s.ecr = z.ecr
	z.stops = append(z.stops, stop)
	if len(z.nodes) == 0 {
		z.join = s.daemon.sharing.GossipAddr().String()
	}
	z.nodes = append(z.nodes, s)
	return s, stop
}

// startAll starts n nodes, and waits until they know each other.
func (z *zone) startAll(t testing.TB, n int) {
	t.Helper()
	for range n {
		z.start(t, peerPatience, "")
	}
	z.awaitNodes(t, n)
}

// awaitNodes waits until all nodes know n nodes.
func (z *zone) awaitNodes(t testing.TB, n int) {
	t.Helper()
	for _, s := range z.nodes {
		for len(s.daemon.sharing.Status().Nodes) != n {
			select {
			case <-time.After(pollInterval):
			case <-t.Context().Done():
				t.Fatal("the nodes do not find each other")
			}
		}
	}
}

// pullWhole pulls an image as a client of a node does. It returns an error if anything of it is not right.
func (s *inside) pullWhole(ctx context.Context, repository string, image *ecrtest.Added) error {
	get := func(path string, want digest.Digest) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.listen+path, http.NoBody)
		if err != nil {
			return err
		}
		resp, err := s.client.Do(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		hash := want.Algorithm().Digester()
		if _, err := io.Copy(hash.Hash(), resp.Body); err != nil {
			return fmt.Errorf("GET %s: %w", path, err)
		}
		if resp.StatusCode != http.StatusOK || hash.Digest() != want {
			return fmt.Errorf("GET %s: %s, %s instead of %s", path, resp.Status, hash.Digest(), want)
		}
		return nil
	}
	if err := get("/v2/"+repository+"/manifests/v1", image.Root.Digest); err != nil {
		return err
	}
	errs := make(chan error, len(image.Blobs))
	for _, blob := range image.Blobs {
		go func() { errs <- get("/v2/"+repository+"/blobs/"+blob.Digest.String(), blob.Digest) }()
	}
	var all []error
	for range image.Blobs {
		all = append(all, <-errs)
	}
	return errors.Join(all...)
}

// addLayers puts an image with some layers, of which the digests are random, into the fake's repository.
func (z *zone) addLayers(t testing.TB, repository string, sizes ...int64) (image *ecrtest.Added, bytes int64) {
	t.Helper()
	var layers []ecrtest.Layer
	for i, n := range sizes {
		layers = append(layers, ecrtest.Layer{Content: ecrtest.Random(uint64(i+1), n)})
	}
	added, err := z.ecr.AddImage(repository, "v1", ecrtest.Image{Layers: layers})
	if err != nil {
		t.Fatal(err)
	}
	for _, blob := range added.Blobs {
		bytes += blob.Size
		z.sizes.Store(blob.Digest.String(), blob.Size)
	}
	return added, bytes
}

// pullAtOnce has a client of each node pull an image at the same time.
func (z *zone) pullAtOnce(t testing.TB, repository string, image *ecrtest.Added) {
	t.Helper()
	var pulling sync.WaitGroup
	for i, s := range z.nodes {
		pulling.Go(func() {
			if err := s.pullWhole(t.Context(), repository, image); err != nil {
				t.Errorf("node %d: %v", i, err)
			}
		})
	}
	pulling.Wait()
}

func TestZoneFetchesEachByteOnce(t *testing.T) {
	z := newZone(t)
	z.startAll(t, 8)
	image, bytes := z.addLayers(t, "team/app", 12<<20, 3<<20, 256<<10, 1000)
	z.ecr.ResetStats()
	z.pullAtOnce(t, "team/app", image)
	z.wantUpstream(t, bytes, 1)
}

// wantUpstream wants that many bytes of blobs and manifests to have come from the upstream.
func (z *zone) wantUpstream(t testing.TB, bytes int64, manifests int) {
	t.Helper()
	stats := z.ecr.Stats()
	if got := stats.Bytes(); got != bytes {
		t.Errorf("%d bytes of blobs came from the upstream, want %d", got, bytes)
	}
	if got := stats.Requests[ecrtest.Manifest]; got != manifests {
		t.Errorf("%d requests for manifests came to the upstream, want %d", got, manifests)
	}
	if t.Failed() {
		for i, s := range z.nodes {
			t.Logf("node %d:\n%s", i, s.log)
		}
	}
}

// A tag that one node has confirmed is confirmed for all, and no longer than for that one.
func TestOneNodeConfirmsATagForAll(t *testing.T) {
	z := newZone(t)
	z.startAll(t, 3)
	image, _ := z.addLayers(t, "team/app", 1000)
	z.ecr.ResetStats()
	repo := cache.Repository{Upstream: z.ecr.Host(), Name: "team/app"}
	z.pullAtOnce(t, "team/app", image)
	if n := z.ecr.Stats().Requests[ecrtest.Manifest]; n != 1 {
		t.Errorf("%d requests for manifests came to the upstream", n)
	}
	var times []time.Time
	for i, s := range z.nodes {
		checked := s.daemon.store.TagChecked(repo, "v1")
		if checked.IsZero() {
			t.Errorf("node %d does not know the tag", i)
		}
		times = append(times, checked)
	}
	<-time.After(2 * time.Second)
	late, _ := z.start(t, peerPatience, "")
	z.awaitNodes(t, 4)
	late.get(t, "/v2/team/app/manifests/v1")
	checked := late.daemon.store.TagChecked(repo, "v1")
	if n := z.ecr.Stats().Requests[ecrtest.Manifest]; n == 1 && checked.After(slices.MaxFunc(times, time.Time.Compare).Add(time.Second)) {
		t.Errorf("the late node counts from %v, and the upstream was asked at %v", checked, times)
	}
}

// Metrics of peers are documented, and there are some.
func TestMetricsOfPeersAreThoseThatAreDocumented(t *testing.T) {
	z := newZone(t)
	z.startAll(t, 2)
	image, _ := z.addLayers(t, "team/app", 1000, 2000, 3000, 4000)
	z.pullAtOnce(t, "team/app", image)
	wantDocumented(t, z.nodes[0].metrics(t), "larder_peer_", 6)
}

// wantDocumented wants the metrics with a prefix to be those that are documented, some at least.
func wantDocumented(t *testing.T, exposed map[string]*dto.MetricFamily, prefix string, least int) {
	t.Helper()
	found := 0
	for name, d := range documentedMetrics(t) {
		family := exposed[name]
		if !strings.HasPrefix(name, prefix) {
			continue
		}
		if found++; family == nil {
			t.Errorf("%s is documented, and missing", name)
			continue
		}
		want := slices.Sorted(slices.Values(d.labels))
		if got := labelsOf(family); !slices.Equal(got, want) || strings.ToLower(family.GetType().String()) != d.kind {
			t.Errorf("%s is a %s with the labels %v, documented as a %s with %v", name, family.GetType(), got, d.kind, want)
		}
	}
	if found < least {
		t.Errorf("only %d metrics %s are documented", found, prefix)
	}
	for name := range exposed {
		if _, ok := documentedMetrics(t)[name]; strings.HasPrefix(name, prefix) && !ok {
			t.Errorf("%s is not documented", name)
		}
	}
}
