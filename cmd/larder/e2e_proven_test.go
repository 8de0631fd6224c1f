package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// A claimant is a registry that has, or claims to have, what another one has. It is at loopback, so that its redirects may
// lead there too.
type claimant struct {
	host      string
	server    *httptest.Server
	blob      http.HandlerFunc  // answers for all blobs
	manifests map[string][]byte // by tag and by digest
	heads     map[string]string // digests that the answer to a HEAD for a tag names

	mu    sync.Mutex // guards what follows
	asked []string   // methods, paths and ranges of the requests for blobs
	sent  int        // bytes of them
}

func newClaimant(t *testing.T, host string, blob http.HandlerFunc) *claimant {
	c := &claimant{host: host, blob: blob, manifests: make(map[string][]byte), heads: make(map[string]string)}
	c.server = httptest.NewServer(c)
	t.Cleanup(c.server.Close)
	return c
}

func (c *claimant) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if _, reference, ok := strings.Cut(r.URL.Path, "/manifests/"); ok {
		c.manifest(w, r, reference)
		return
	}
	if strings.Contains(r.URL.Path, "/blobs/") {
		c.mu.Lock()
		c.asked = append(c.asked, r.Method+" "+r.URL.Path+" "+r.Header.Get("Range"))
		c.mu.Unlock()
		w = countingWriter{w, c}
	}
	c.blob(w, r)
}

func (c *claimant) manifest(w http.ResponseWriter, r *http.Request, reference string) {
	if named, ok := c.heads[reference]; ok && r.Method == http.MethodHead {
		w.Header().Set("Content-Type", ocispec.MediaTypeImageManifest)
		w.Header().Set("Docker-Content-Digest", named)
		return
	}
	raw, ok := c.manifests[reference]
	if !ok {
		http.NotFound(w, r)
		return
	}
	mediaType := ocispec.MediaTypeImageManifest
	if bytes.Contains(raw, []byte(`"manifests"`)) {
		mediaType = ocispec.MediaTypeImageIndex
	}
	w.Header().Set("Content-Type", mediaType)
	w.Header().Set("Docker-Content-Digest", digest.FromBytes(raw).String())
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(raw))
}

// add gives the registry a manifest with a tag.
func (c *claimant) add(tag string, raw []byte) {
	c.manifests[tag], c.manifests[digest.FromBytes(raw).String()] = raw, raw
}

// requests returns the requests for blobs so far, and how many bytes were sent.
func (c *claimant) requests() (asked []string, sent int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]string(nil), c.asked...), c.sent
}

type countingWriter struct {
	http.ResponseWriter
	claimant *claimant
}

func (w countingWriter) Write(p []byte) (int, error) {
	w.claimant.mu.Lock()
	w.claimant.sent += len(p)
	w.claimant.mu.Unlock()
	return w.ResponseWriter.Write(p)
}

// secret is an image of one layer. Nothing else in the tests has its bytes.
type secret struct {
	layer, config, manifest []byte
}

func newSecret(seed uint64) *secret {
	s := &secret{layer: make([]byte, 300_000), config: fmt.Appendf(nil, `{"architecture": "amd64", "os": "linux", "author": "%d"}`, seed)}
	random := rand.NewChaCha8([32]byte{byte(seed)})
	_, _ = random.Read(s.layer) // never fails
	s.manifest = imageOf(s.config, s.layer, len(s.layer))
	return s
}

// imageOf is a manifest that says that the layer has a size.
func imageOf(config, layer []byte, size int) []byte {
	return fmt.Appendf(nil, `{"schemaVersion": 2, "mediaType": %q, "config": {"mediaType": %q, "digest": %q, "size": %d}, "layers": [{"mediaType": %q, "digest": %q, "size": %d}]}`,
		ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageConfig, digest.FromBytes(config), len(config),
		ocispec.MediaTypeImageLayerGzip, digest.FromBytes(layer), size)
}

// indexOf is an index that names a manifest.
func indexOf(manifest []byte) []byte {
	return fmt.Appendf(nil, `{"schemaVersion": 2, "mediaType": %q, "manifests": [{"mediaType": %q, "digest": %q, "size": 7, "platform": {"os": "linux", "architecture": "amd64"}}]}`,
		ocispec.MediaTypeImageIndex, ocispec.MediaTypeImageManifest, digest.FromBytes(manifest))
}

// serve answers for the blobs of the image as a registry should, by a redirect to its storage.
func (s *secret) serve(w http.ResponseWriter, r *http.Request) {
	for _, content := range [][]byte{s.layer, s.config} {
		if strings.HasSuffix(r.URL.Path, digest.FromBytes(content).String()) {
			http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(content))
			return
		}
	}
	http.NotFound(w, r)
}

// claimantsStack starts a Larder with these upstreams.
func claimantsStack(t *testing.T, keys string, all ...*claimant) *stack {
	t.Helper()
	var upstreams strings.Builder
	upstreams.WriteString("upstreams:\n")
	for _, c := range all {
		fmt.Fprintf(&upstreams, "  - {host: %s, endpoint: %q, timeout: 5s%s}\n", c.host, c.server.URL, keys)
	}
	s := newStack(t, upstreams.String())
	s.startLarder(t)
	return s
}

// ask sends a request to Larder, and returns the answer with its whole body.
func (s *stack) ask(t *testing.T, method string, c *claimant, path, byteRange string) (*http.Response, []byte) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, "http://"+s.listen+"/v2/"+path+"?ns="+c.host, nil)
	if err != nil {
		t.Fatal(err)
	}
	if byteRange != "" {
		req.Header.Set("Range", byteRange)
	}
	resp, err := (&http.Client{Transport: transport(t)}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body) // a body that is cut is no content
	return resp, body
}

// requireGets checks that a client of the registry gets content.
func (s *stack) requireGets(t *testing.T, c *claimant, path string, want []byte) *http.Response {
	t.Helper()
	resp, body := s.ask(t, http.MethodGet, c, path, "")
	if resp.StatusCode != http.StatusOK || !bytes.Equal(body, want) {
		t.Errorf("%s/%s: %s, %d of %d bytes", c.host, path, resp.Status, len(body), len(want))
	}
	return resp
}

// requireNothing checks that no client of the registry gets a byte of content, or its size.
func (s *stack) requireNothing(t *testing.T, c *claimant, path string, content []byte) {
	t.Helper()
	for _, method := range []string{http.MethodGet, http.MethodHead} {
		for _, byteRange := range []string{"", "bytes=0-9", "bytes=-10"} {
			resp, body := s.ask(t, method, c, path, byteRange)
			part := resp.StatusCode == http.StatusPartialContent && method == http.MethodGet
			if resp.StatusCode == http.StatusOK && method == http.MethodGet || part || len(body) > 0 && bytes.Contains(content, body) {
				t.Errorf("%s %s/%s %s: %s with %d bytes", method, c.host, path, byteRange, resp.Status, len(body))
			}
			size := strconv.Itoa(len(content))
			if strings.Contains(resp.Header.Get("Content-Length")+" "+resp.Header.Get("Content-Range"), size) {
				t.Errorf("%s %s/%s %s: %s tells its size: %v", method, c.host, path, byteRange, resp.Status, resp.Header)
			}
		}
	}
}

// blobLies are answers for a blob of a registry that does not have it.
func blobLies() map[string]http.HandlerFunc {
	page := func(w http.ResponseWriter) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = io.WriteString(w, "<html>Log in to the network")
	}
	return map[string]http.HandlerFunc{
		"missing": http.NotFound,
		"nowhere": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://127.0.0.1:1/storage", http.StatusTemporaryRedirect)
		},
		"missing-storage": func(w http.ResponseWriter, r *http.Request) {
			if strings.HasPrefix(r.URL.Path, "/storage") {
				http.NotFound(w, r)
				return
			}
			http.Redirect(w, r, "/storage", http.StatusTemporaryRedirect)
		},
		"login": func(w http.ResponseWriter, r *http.Request) {
			if strings.HasPrefix(r.URL.Path, "/login") {
				page(w)
				return
			}
			http.Redirect(w, r, "/login", http.StatusFound)
		},
		"page": func(w http.ResponseWriter, _ *http.Request) { page(w) },
		"size": func(w http.ResponseWriter, r *http.Request) {
			http.ServeContent(w, r, "", time.Time{}, strings.NewReader("another blob, which is not as large, and longer than a proof is"+strings.Repeat(".", 100)))
		},
		"bytes": func(w http.ResponseWriter, r *http.Request) {
			http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(make([]byte, 300_000)))
		},
		"head": func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodHead {
				w.Header().Set("Content-Length", "300000")
				return
			}
			http.NotFound(w, r)
		},
		"empty": func(http.ResponseWriter, *http.Request) {},
	}
}

func TestCachedContentOfOneUpstreamIsNotServedByTheWordOfAnother(t *testing.T) {
	t.Parallel()
	image := newSecret(1)
	layer, config, manifest := digest.FromBytes(image.layer), digest.FromBytes(image.config), digest.FromBytes(image.manifest)
	victim := newClaimant(t, "victim.example", image.serve)
	victim.add("1", image.manifest)
	all := []*claimant{victim}
	for name, blob := range blobLies() {
		liar := newClaimant(t, name+".example", blob)
		liar.add("named", imageOf(image.config, image.layer, 7))
		liar.add("indexed", indexOf(image.manifest))
		liar.add("tagged", []byte(`{"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": []}`))
		liar.heads[manifest.String()] = manifest.String()
		all = append(all, liar)
	}
	s := claimantsStack(t, "", all...)
	s.requireGets(t, victim, "a/x/manifests/1", image.manifest)
	s.requireGets(t, victim, "a/x/blobs/"+layer.String(), image.layer)
	s.requireGets(t, victim, "a/x/blobs/"+config.String(), image.config)
	for _, liar := range all[1:] {
		t.Run(liar.host, func(t *testing.T) {
			s.requireNothing(t, liar, "b/unnamed/blobs/"+layer.String(), image.layer)
			s.requireGets(t, liar, "b/y/manifests/named", liar.manifests["named"])
			s.requireGets(t, liar, "b/y/manifests/indexed", liar.manifests["indexed"])
			s.requireNothing(t, liar, "b/y/blobs/"+layer.String(), image.layer)
			s.requireNothing(t, liar, "b/y/manifests/"+manifest.String(), image.manifest)
			s.requireGets(t, liar, "b/y/manifests/tagged", liar.manifests["tagged"])
			liar.heads["tagged"] = manifest.String()
			resp, body := s.ask(t, http.MethodGet, liar, "b/y/manifests/tagged", "")
			if bytes.Equal(body, image.manifest) || resp.Header.Get("Docker-Content-Digest") == manifest.String() {
				t.Errorf("a HEAD for a tag is enough: %s", resp.Status)
			}
			s.requireNothing(t, liar, "b/y/manifests/"+manifest.String(), image.manifest)
		})
	}
	s.requireGets(t, victim, "a/x/blobs/"+layer.String(), image.layer)
}

func TestContentOfTwoUpstreamsIsFetchedOnceAndConfirmedOnce(t *testing.T) {
	t.Parallel()
	image := newSecret(2)
	layer, config := digest.FromBytes(image.layer), digest.FromBytes(image.config)
	first, second, third := newClaimant(t, "first.example", image.serve), newClaimant(t, "second.example", image.serve), newClaimant(t, "third.example", image.serve)
	for _, c := range []*claimant{first, second, third} {
		c.add("1", image.manifest)
	}
	s := claimantsStack(t, "", first, second, third)
	confirmed := func(n int) {
		t.Helper()
		s.larder.await(t, func(ctx context.Context) bool { return confirmations(s.tells(ctx, t, "/metrics"))["confirmed"] == n })
	}
	pull := func(c *claimant) {
		t.Helper()
		s.requireGets(t, c, "b/y/manifests/1", image.manifest)
		if c == second { // a client that asks at the same time confirms by itself
			confirmed(2)
		}
		for _, content := range [][]byte{image.config, image.layer} {
			if resp := s.requireGets(t, c, "b/y/blobs/"+digest.FromBytes(content).String(), content); c != first && resp.Header.Get("X-Cache") != "HIT" {
				t.Errorf("%s: %s", c.host, resp.Header.Get("X-Cache"))
			}
		}
	}
	pull(first)
	for range 2 {
		pull(second)
		if asked, sent := second.requests(); len(asked) != 2 || sent > 128 {
			t.Errorf("%d bytes were sent for %q", sent, asked)
		}
	}
	if _, sent := first.requests(); sent != len(image.layer)+len(image.config) {
		t.Errorf("the first upstream sent %d bytes", sent)
	}

	// A runtime that has the layers asks for the manifest only.
	s.requireGets(t, third, "b/y/manifests/1", image.manifest)
	confirmed(4)
	if asked, sent := third.requests(); len(asked) != 2 || sent > 128 {
		t.Errorf("%d bytes were sent for %q", sent, asked)
	}
	for _, c := range []*claimant{first, second, third} {
		c.server.Close()
	}
	s.restartLarder(t)
	for _, c := range []*claimant{first, second, third} {
		resp := s.requireGets(t, c, "b/y/blobs/"+layer.String(), image.layer)
		s.requireGets(t, c, "b/y/blobs/"+config.String(), image.config)
		s.requireGets(t, c, "b/y/manifests/1", image.manifest)
		if resp.Header.Get("X-Cache") != "HIT" {
			t.Errorf("%s: %s", c.host, resp.Header.Get("X-Cache"))
		}
	}
}

// confirmations returns the counter of the metrics page, by result.
func confirmations(page string) map[string]int {
	all := make(map[string]int)
	for line := range strings.Lines(page) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), "} ")
		if _, labels, ok := strings.Cut(name, "larder_confirmations_total{"); ok {
			_, result, _ := strings.Cut(labels, `result="`)
			result, _, _ = strings.Cut(result, `"`)
			all[result], _ = strconv.Atoi(value)
		}
	}
	return all
}

// The repositories of an upstream with an allow list do not vouch for each other.
func TestRepositoryIsNotServedByTheWordOfAnAllowedNeighbour(t *testing.T) {
	t.Parallel()
	image := newSecret(3)
	layer := digest.FromBytes(image.layer)
	registry := newClaimant(t, "registry.example", nil)
	registry.blob = func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/v2/b/y/") {
			http.NotFound(w, r)
			return
		}
		image.serve(w, r)
	}
	registry.add("1", image.manifest)
	registry.add("named", imageOf(image.config, image.layer, 7))
	s := claimantsStack(t, `, allow: ["a/x", "b/y", "c/z"]`, registry)
	s.requireGets(t, registry, "a/x/manifests/1", image.manifest)
	s.requireGets(t, registry, "a/x/blobs/"+layer.String(), image.layer)
	s.requireGets(t, registry, "b/y/manifests/named", registry.manifests["named"])
	s.requireNothing(t, registry, "b/y/blobs/"+layer.String(), image.layer)
	s.requireGets(t, registry, "c/z/manifests/1", image.manifest)
	s.requireGets(t, registry, "c/z/blobs/"+layer.String(), image.layer)
	if _, sent := registry.requests(); sent > len(image.layer)+len(image.config)+1000 {
		t.Errorf("%d bytes were sent", sent)
	}
}
