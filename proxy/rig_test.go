package proxy_test

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/larder-registry/larder/cache"
	"github.com/larder-registry/larder/cache/cachetest"
	"github.com/larder-registry/larder/proxy"
	"github.com/larder-registry/larder/proxy/audit"
	"github.com/larder-registry/larder/proxy/policy"
	"github.com/larder-registry/larder/upstream"
	"github.com/larder-registry/larder/upstream/dial"
	"github.com/larder-registry/larder/upstream/ecrtest"
	"github.com/larder-registry/larder/upstream/pace"
)

// app is the repository of most tests.
const app = "team/app"

// settings are those of a rig that are not the default.
type settings struct {
	forbidden string // a repository that no upstream may serve
	cache     cache.Options
	audit     *audit.Log
	policy    *policy.Policy
	log       io.Writer     // for JSON lines; discarded if nil
	timeout   time.Duration // of the upstreams; a minute if 0
	// fallback is the upstream for requests that name none; the fake's host if
	// nil.
	fallback *string
	// statusPage is Options.StatusPage.
	statusPage string
	// now is the clock of the fake, of tokens and, unless cache has another, of the
	// store; time.Now if nil.
	now func() time.Time
	// also is another host that the fake serves.
	also string
	// public makes the fake ECR Public.
	public bool
	// noReferrers makes the fake a registry from before the referrers API.
	noReferrers bool
	// offline says that all upstreams are, unless it is nil.
	offline *atomic.Bool
	// resolver looks up names, of which the endpoints then have one. Nil for endpoints
	// with an address.
	resolver *dial.Resolver
	// replica is a fake of another region with the same content, or nil.
	replica *ecrtest.Running
}

// rig is a Larder in this process in front of a fake ECR, and a client of it.
type rig struct {
	t     testing.TB
	set   settings
	ecr   *ecrtest.Running
	dir   string
	meter *meter
	http  *http.Client
	*larder

	background atomic.Int64 // requests that were marked as such
	askedFor   atomic.Value // the address of the client for which a blob was last fetched
}

// larder is the part of a rig that a restart replaces.
type larder struct {
	store  *cache.Store
	client *upstream.Client
	proxy  *proxy.Proxy
	server *httptest.Server
}

func newRig(t testing.TB, set settings) *rig {
	t.Helper()
	fake, err := ecrtest.Start(ecrtest.Options{Now: set.now, Public: set.public, NoReferrers: set.noReferrers})
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{
		t: t, set: set, ecr: fake, meter: newMeter(t),
		dir: filepath.Join(t.TempDir(), "cache"),
		// Connections are not reused, since Go's client repeats requests that fail on
		// a reused one. Compression is not asked for.
		http: &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DisableCompression: true}},
	}
	r.start()
	t.Cleanup(func() {
		r.stop()
		if err := fake.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

// start starts a Larder.
func (r *rig) start() {
	r.t.Helper()
	log := slog.New(slog.DiscardHandler)
	if r.set.log != nil {
		log = slog.New(slog.NewJSONHandler(r.set.log, nil))
	}
	opts := r.set.cache
	opts.Log, opts.Meter = log, r.meter
	if opts.Now == nil {
		opts.Now = r.set.now
	}
	isOffline := func(string) bool { return r.set.offline != nil && r.set.offline.Load() }
	opts.Tags.Offline = func(upstream string) (bool, time.Time) { return isOffline(upstream), time.Time{} }
	store, err := cache.Open(r.dir, opts)
	if err != nil {
		r.t.Fatal(err)
	}
	client := upstream.NewClient(upstream.Options{Lookup: r.lookup, Offline: isOffline, Resolver: r.set.resolver, Log: log, Now: r.set.now})
	fallback := r.ecr.Host()
	if r.set.fallback != nil {
		fallback = *r.set.fallback
	}
	handler := proxy.New(proxy.Options{
		Upstreams: func(host, repository string) (proxy.Source, error) {
			if _, ok := r.lookup(host); !ok {
				return proxy.Source{}, proxy.ErrNotConfigured
			}
			if repository == r.set.forbidden {
				return proxy.Source{}, proxy.ErrNotAllowed
			}
			registry, err := client.Registry(host)
			if err != nil {
				r.t.Errorf("upstream %s: %v", host, err)
				return proxy.Source{}, err
			}
			return proxy.Source{Upstream: registry, OpenBlob: openBlob(registry), WithAdmission: upstream.WithAdmission, Background: r.mark, For: r.note, Timeout: r.timeout()}, nil
		},
		Audit:   r.set.audit,
		Policy:  r.set.policy,
		Default: fallback,
		Store:   store,

		StatusPage: r.set.statusPage,
		Log:        log,
	})
	r.larder = &larder{store: store, client: client, proxy: handler, server: httptest.NewServer(handler)}
}

// stop ends the Larder. The fake continues.
func (r *rig) stop() {
	r.server.Close()
	if err := errors.Join(r.store.Close(), cachetest.Check(r.dir)); err != nil {
		r.t.Error(err)
	}
	if err := r.client.Close(); err != nil {
		r.t.Error(err)
	}
}

// restart replaces the Larder with one on the same folder.
func (r *rig) restart() {
	r.t.Helper()
	r.stop()
	r.start()
}

// note notes for which client a blob is fetched.
func (r *rig) note(ctx context.Context, client string) context.Context {
	r.askedFor.Store(client)
	return ctx
}

// mark counts a request that nobody waits for.
func (r *rig) mark(ctx context.Context, attended <-chan struct{}) context.Context {
	r.background.Add(1)
	return pace.BackgroundUntil(ctx, attended)
}

func (r *rig) timeout() time.Duration { return cmp.Or(r.set.timeout, time.Minute) }

// lookup has the upstreams of the rig, all there are.
func (r *rig) lookup(host string) (upstream.Config, bool) {
	endpoint := r.ecr.Endpoint
	if r.set.resolver != nil {
		endpoint = strings.Replace(endpoint, "127.0.0.1", "ecr.localhost", 1)
	}
	cfg := upstream.Config{
		Host:     host,
		Endpoint: endpoint,
		Timeout:  r.timeout(),
		ECR:      upstream.ECRConfig{APIEndpoint: endpoint, Region: "us-east-1"},
	}
	if replica := r.set.replica; replica != nil {
		if host == replica.Host() {
			cfg.Endpoint, cfg.ECR = replica.Endpoint, upstream.ECRConfig{APIEndpoint: replica.Endpoint}
			return cfg, true
		}
		cfg.ECR.Replicas = []string{replica.Host()}
	}
	return cfg, host == r.ecr.Host() || host == r.set.also && host != ""
}

// addImage puts an image into the fake's repository app, under tag.
func (r *rig) addImage(tag string, layers ...ecrtest.Content) *ecrtest.Added {
	r.t.Helper()
	var img ecrtest.Image
	for _, l := range layers {
		img.Layers = append(img.Layers, ecrtest.Layer{Content: l})
	}
	added, err := r.ecr.AddImage(app, tag, img)
	if err != nil {
		r.t.Fatal(err)
	}
	return added
}

// addBlob puts a blob that no manifest names into a repository of the fake.
func (r *rig) addBlob(repo string, c ecrtest.Content) ocispec.Descriptor {
	r.t.Helper()
	desc, err := r.ecr.AddBlob(repo, c)
	if err != nil {
		r.t.Fatal(err)
	}
	return desc
}

func blobPath(repo string, d digest.Digest) string { return "/v2/" + repo + "/blobs/" + d.String() }
func manifestPath(repo string, reference string) string {
	return "/v2/" + repo + "/manifests/" + reference
}

// answer is a response with its body, or with the part of it that arrived.
type answer struct {
	*http.Response
	body []byte
	err  error // of the request, or of reading the body
}

// request makes a request to this Larder, with headers in pairs.
func (r *rig) request(method, path string, header ...string) *http.Request {
	r.t.Helper()
	req, err := http.NewRequestWithContext(r.t.Context(), method, r.server.URL+path, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	return req
}

// open sends a request and returns when it has the headers of the response.
func (r *rig) open(method, path string, header ...string) *http.Response {
	r.t.Helper()
	resp, err := r.http.Do(r.request(method, path, header...))
	if err != nil {
		r.t.Fatalf("%s %s: %v", method, path, err)
	}
	r.t.Cleanup(func() { resp.Body.Close() })
	return resp
}

// ask sends a request and reads the whole response.
func (r *rig) ask(method, path string, header ...string) answer {
	r.t.Helper()
	return read(r.open(method, path, header...))
}

// try is like ask, for goroutines other than the test's: a failed request is an answer
// with its error alone.
func (r *rig) try(req *http.Request) answer {
	resp, err := r.http.Do(req)
	if err != nil {
		return answer{err: err}
	}
	return read(resp)
}

func (r *rig) get(path string, header ...string) answer {
	r.t.Helper()
	return r.ask(http.MethodGet, path, header...)
}

func (r *rig) head(path string, header ...string) answer {
	r.t.Helper()
	return r.ask(http.MethodHead, path, header...)
}

func read(resp *http.Response) answer {
	defer resp.Body.Close()
	body := bytes.NewBuffer(make([]byte, 0, max(resp.ContentLength, 0)+bytes.MinRead))
	_, err := body.ReadFrom(resp.Body)
	return answer{resp, body.Bytes(), err}
}

// cache fetches a blob and waits until it is in the store.
func (r *rig) cache(path string) []byte {
	r.t.Helper()
	before := r.meter.count("larder.fills")
	a := r.get(path)
	wantStatus(r.t, a, http.StatusOK)
	if a.err != nil {
		r.t.Fatalf("GET %s: %v", path, a.err)
	}
	r.meter.wait("larder.fills", before+1)
	return a.body
}

func wantStatus(t testing.TB, a answer, status int) {
	t.Helper()
	if a.Response == nil {
		t.Fatal(a.err)
	}
	if a.StatusCode != status {
		t.Fatalf("%s %s: %s: %.300s; want status %d", a.Request.Method, a.Request.URL, a.Status, a.body, status)
	}
}

func wantHeader(t testing.TB, a answer, name, value string) {
	t.Helper()
	if got := a.Header.Get(name); got != value {
		t.Errorf("%s %s: %s: %q, want %q", a.Request.Method, a.Request.URL, name, got, value)
	}
}

func wantBody(t testing.TB, a answer, body []byte) {
	t.Helper()
	if a.err != nil {
		t.Errorf("%s %s: %v", a.Request.Method, a.Request.URL, a.err)
	}
	if !bytes.Equal(a.body, body) {
		t.Errorf("%s %s: %d bytes that are not the %d wanted", a.Request.Method, a.Request.URL, len(a.body), len(body))
	}
}

// bytesOf reads a content into memory.
func bytesOf(t testing.TB, c ecrtest.Content) []byte {
	t.Helper()
	b := make([]byte, c.Size())
	if _, err := c.ReadAt(b, 0); err != nil && err != io.EOF {
		t.Fatal(err)
	}
	return b
}

// flip changes the last bit of a cached blob.
func (r *rig) flip(d digest.Digest) {
	r.t.Helper()
	path := filepath.Join(r.dir, "blobs", d.Algorithm().String(), d.Encoded()[:2], d.Encoded())
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		r.t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		r.t.Fatal(err)
	}
	last := make([]byte, 1)
	if _, err := f.ReadAt(last, info.Size()-1); err != nil {
		r.t.Fatal(err)
	}
	last[0] ^= 1
	if _, err := f.WriteAt(last, info.Size()-1); err != nil {
		r.t.Fatal(err)
	}
}

// openBlob opens blobs of a registry for the cache.
func openBlob(r *upstream.Registry) proxy.OpenBlob {
	return func(ctx context.Context, repository string, dgst digest.Digest, part cache.Range) (cache.Content, error) {
		content, err := r.OpenBlob(ctx, repository, dgst, upstream.Range(part))
		return cache.Content(content), err
	}
}
