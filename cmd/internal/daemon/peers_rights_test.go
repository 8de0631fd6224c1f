package daemon

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/larder-registry/larder/config"
	"github.com/larder-registry/larder/upstream/ecrtest"
	"github.com/larder-registry/larder/upstream/peer/ring"
)

// ask sends a question to a node as another node does, and returns the answer with its body.
func (z *zone) ask(t testing.TB, node *inside, path string, header ...string) (*http.Response, []byte) {
	t.Helper()
	keys, err := ring.ReadKeys(z.keyFile)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{DialTLSContext: (&ring.Dialer{Ring: ring.New(keys...)}).Dial}
	defer transport.CloseIdleConnections()
	at := node.daemon.sharing.Listener().Addr().String()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+at+path, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Larder-Peer", "127.0.0.1:9")
	req.Header.Set("Larder-Peer-Hops", "1")
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, body
}

func TestPeersGetWhatThisNodesConfigurationAllows(t *testing.T) {
	z := newZone(t)
	image, _ := z.addLayers(t, "team/app", 1000)
	secret, _ := z.addLayers(t, "other/app", 2000)
	byClient, err := ecrtest.Start(ecrtest.Options{Public: true})
	if err != nil {
		t.Fatal(err)
	}
	defer byClient.Close()
	if _, err := byClient.AddImage("team/app", "v1", ecrtest.Image{}); err != nil {
		t.Fatal(err)
	}
	s, _ := z.start(t, peerPatience, "    allow: [\"team/*\"]\n"+
		"  - {host: registry.example.com, endpoint: "+byClient.Endpoint+", access: client}\n")
	for name, test := range map[string]struct {
		path   string
		status int
	}{
		"what is allowed":           {"/v2/team/app/manifests/v1?ns=" + z.ecr.Host(), http.StatusOK},
		"a blob of it":              {"/v2/team/app/blobs/" + image.Blobs[0].Digest.String() + "?ns=" + z.ecr.Host(), http.StatusOK},
		"another repository":        {"/v2/other/app/manifests/v1?ns=" + z.ecr.Host(), http.StatusNotFound},
		"a blob of another":         {"/v2/other/app/blobs/" + secret.Blobs[0].Digest.String() + "?ns=" + z.ecr.Host(), http.StatusNotFound},
		"a blob that is elsewhere":  {"/v2/team/app/blobs/" + secret.Blobs[0].Digest.String() + "?ns=" + z.ecr.Host(), http.StatusNotFound},
		"a registry of clients":     {"/v2/team/app/manifests/v1?ns=registry.example.com", http.StatusNotFound},
		"a registry of nobody":      {"/v2/team/app/manifests/v1?ns=nobody.example.com", http.StatusNotFound},
		"the status page":           {"/", http.StatusNotFound},
		"a token":                   {"/v2/_larder/token", http.StatusNotFound},
		"commands":                  {"/api/v1/peers", http.StatusNotFound},
		"a blob by a wrong digest":  {"/v2/team/app/blobs/sha256:00?ns=" + z.ecr.Host(), http.StatusBadRequest},
		"a repository without name": {"/v2//manifests/v1?ns=" + z.ecr.Host(), http.StatusBadRequest},
	} {
		if resp, body := z.ask(t, s, test.path); resp.StatusCode != test.status {
			t.Errorf("%s: %s\n%s", name, resp.Status, body)
		}
	}
	if n := byClient.Stats().Requests[ecrtest.Any]; n != 0 {
		t.Errorf("the registry of clients was asked %d times", n)
	}
}

func TestQuestionThatIsNoneIsRefused(t *testing.T) {
	z := newZone(t)
	s, _ := z.start(t, peerPatience, "")
	for name, header := range map[string][]string{
		"no address":    {"Larder-Peer", "nobody"},
		"no hops":       {"Larder-Peer-Hops", "x"},
		"negative hops": {"Larder-Peer-Hops", "-1"},
	} {
		if resp, _ := z.ask(t, s, "/v2/team/app/manifests/v1?ns="+z.ecr.Host(), header...); resp.StatusCode != http.StatusBadRequest {
			t.Errorf("%s: %s", name, resp.Status)
		}
	}
}

func TestOfflineNodeHasNobodyAskTheUpstream(t *testing.T) {
	z := newZone(t)
	offline, _ := z.start(t, peerPatience, "")
	z.start(t, peerPatience, "")
	z.start(t, peerPatience, "")
	z.awaitNodes(t, 3)
	image, _ := z.addLayers(t, "team/app", 100_000, 200_000, 300_000)
	if err := offline.daemon.setOffline(z.ecr.Host(), true); err != nil {
		t.Fatal(err)
	}
	z.ecr.ResetStats()
	blobOf := func(i int) string { return "/v2/team/app/blobs/" + image.Blobs[i].Digest.String() }
	for _, path := range []string{"/v2/team/app/manifests/v1", "/v2/team/app/manifests/" + image.Root.Digest.String(), blobOf(0), "/v2/team/app/referrers/" + image.Root.Digest.String()} {
		if status := offline.statusOf(t, path); status == http.StatusOK {
			t.Errorf("%s is served though nobody has it", path)
		}
	}
	if n := z.ecr.Stats().Requests; len(n) > 0 {
		t.Errorf("the upstream was asked: %v", n)
	}
	z.nodes[1].pull(t, "team/app", image)
	before := z.ecr.Stats().Requests
	if status := offline.statusOf(t, "/v2/team/app/manifests/"+image.Root.Digest.String()); status != http.StatusOK {
		t.Errorf("what another node has is answered with %d\n%s", status, offline.log)
	}
	for op, n := range z.ecr.Stats().Requests {
		if n != before[op] {
			t.Errorf("the upstream was asked %d times more", n-before[op])
		}
	}
}

// statusOf is that of an answer, which is read to its end.
func (s *inside) statusOf(t testing.TB, path string) int {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+s.listen+path, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := s.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode
}

// What a node sends to others has none of the credentials that it asks its upstreams with.
func TestNoCredentialReachesAPeer(t *testing.T) {
	z := newZone(t)
	var mu sync.Mutex
	var sent []http.Header
	z.start(t, peerPatience, "")
	z.badPeer(t, z.proving(t, func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		sent = append(sent, r.Header.Clone())
		w.WriteHeader(http.StatusServiceUnavailable)
	}))
	z.awaitNodes(t, 2)
	sizes := make([]int64, 16)
	for i := range sizes {
		sizes[i] = int64(1000 + i)
	}
	image, _ := z.addLayers(t, "team/app", sizes...)
	if err := z.nodes[0].pullWhole(t.Context(), "team/app", image); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	defer mu.Unlock()
	if len(sent) == 0 {
		t.Fatal("the other node was not asked")
	}
	allowed := []string{"Larder-Peer", "Larder-Peer-Hops", "Larder-Peer-Avoid", "Larder-Peer-Have", "Range", "User-Agent", "Traceparent"}
	for _, header := range sent {
		for name := range header {
			if !slices.Contains(allowed, name) {
				t.Errorf("a node sends %s to others", name)
			}
		}
	}
}

func TestKeyIsReplacedWithoutARestart(t *testing.T) {
	z := newZone(t)
	z.startAll(t, 3)
	before, err := ring.ReadKeys(z.keyFile)
	if err != nil {
		t.Fatal(err)
	}
	after := ring.NewKey()
	for i, keys := range [][]ring.Key{{before[0], after}, {after, before[0]}, {after}} {
		var text strings.Builder
		for _, key := range keys {
			text.WriteString(key.Encode() + "\n")
		}
		if err := os.WriteFile(z.keyFile, []byte(text.String()), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, s := range z.nodes {
			s.daemon.Reload(s.daemon.cfg, nil)
			for strings.Count(s.log.String(), "the cluster's keys have changed") <= i {
				<-time.After(pollInterval)
			}
		}
		image, bytes := z.addLayers(t, fmt.Sprintf("team/app%d", i), 100_000, int64(200_000+i))
		z.ecr.ResetStats()
		z.pullAtOnce(t, fmt.Sprintf("team/app%d", i), image)
		if got := z.ecr.Stats().Bytes(); got > bytes {
			t.Errorf("step %d: %d bytes came from the upstream, and the image has %d", i, got, bytes)
		}
	}
	z.awaitNodes(t, 3)
}

func TestNodeWithoutAReadableKeyIsAlone(t *testing.T) {
	z := newZone(t)
	if err := os.Chmod(z.keyFile, 0o644); err != nil {
		t.Fatal(err)
	}
	ecr := z.ecr
	image, _ := z.addLayers(t, "team/app", 1000)
	cfg, err := config.Load(writeConfig(t, configFor(ecr)+fmt.Sprintf("peers: {listen: 127.0.0.1:0, join: [127.0.0.1:1], key_file: %q}\n", z.keyFile)))
	if err != nil {
		t.Fatal(err)
	}
	s, stop := serve(t, cfg, 0)
	defer stop()
	if err := s.pullWhole(t.Context(), "team/app", image); err != nil {
		t.Error(err)
	}
	if !strings.Contains(s.log.String(), "shares nothing") || !strings.Contains(s.log.String(), "chmod 0600") {
		t.Errorf("the log does not say why nothing is shared:\n%s", s.log)
	}
}
