package proxy

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"

	"github.com/larder-registry/larder/cache"
	"github.com/larder-registry/larder/proxy/origin"
	"github.com/larder-registry/larder/upstream/name"
)

const (
	// maxQuery bounds a request's query, in bytes, of which a list passes most on. The
	// longest that clients send is a registry's own Link with some hundred.
	maxQuery = 4 << 10
	// maxRanges bounds the ranges of a request: each costs a part of the response with its
	// own header. podman sends up to 1,024 for zstd:chunked layers.
	maxRanges = 1024
)

// Options are the settings of a [Proxy]. Upstreams and Store are required.
type Options struct {
	// Upstreams returns the upstream for a host, if it is configured and may serve
	// the repository. No other upstreams exist.
	Upstreams func(host, repository string) (Source, bool)
	// Default is the host for requests that name none. Empty means that such requests
	// fail.
	Default string
	Store   *cache.Store
	// CheckHost returns an error, origin.ErrHost, for a request whose Host header is
	// not one of the listener. Nil means that every Host is answered.
	CheckHost func(*http.Request) error
	// Log gets one line for each request. Nil means slog.Default().
	Log *slog.Logger
	// Meter provides the instruments. Nil means that nothing is measured.
	Meter metric.MeterProvider
	// RepositoryLabel adds the repository to the metrics of requests, for the first
	// hundred repositories.
	RepositoryLabel bool
	// Tracer begins a span for each request. Nil means that there are no spans.
	Tracer trace.TracerProvider
}

// Proxy answers /v2 for clients. It is an http.Handler for HTTP/1.1. Its methods are
// safe for concurrent use.
type Proxy struct {
	upstreams func(host, repository string) (Source, bool)
	fallback  string // the host for requests that name none
	checkHost func(*http.Request) error
	store     *cache.Store
	pulls     pulls
	lists     lists

	log      requestLog
	metrics  *metrics
	traces   traces
	counters counters
}

// New returns a proxy. It starts no goroutines.
func New(opts Options) *Proxy {
	if opts.Log == nil {
		opts.Log = slog.Default()
	}
	if opts.CheckHost == nil {
		opts.CheckHost = func(*http.Request) error { return nil }
	}
	documents := newMemory()
	p := &Proxy{
		upstreams: opts.Upstreams,
		fallback:  opts.Default,
		checkHost: opts.CheckHost,
		store:     opts.Store,
		pulls:     pulls{store: opts.Store, memory: documents},
		lists:     lists{store: opts.Store, memory: documents},
		log:       requestLog{opts.Log},
		traces:    newTraces(opts.Tracer),
	}
	var err error
	if p.metrics, err = newMetrics(opts.Meter, opts.RepositoryLabel); err != nil {
		opts.Log.Error("requests are not measured", "error", err)
		p.metrics, _ = newMetrics(nil, false) // never fails
	}
	return p
}

// ServeHTTP answers one request, and logs, counts and traces it.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	rec := &recorder{ResponseWriter: w, start: time.Now()}
	p.metrics.active.Add(1)
	defer p.metrics.active.Add(-1)
	r, span := p.traces.start(r)
	var t target
	defer func() {
		aborted := recover()
		p.counters.count(rec, t, aborted != nil)
		p.metrics.count(rec, t, aborted != nil)
		p.traces.end(span, r, rec, t, aborted != nil)
		p.log.write(r, rec, t, time.Since(rec.start), aborted != nil)
		if aborted != nil {
			panic(aborted)
		}
	}()
	var err error
	if t, err = p.targetOf(r); err == nil {
		err = p.answer(rec, r, t)
	}
	if err == nil || hasLeft(r, err) {
		return
	}
	rec.err = err
	if rec.status != 0 {
		// The headers are out: only a cut connection tells the client.
		panic(http.ErrAbortHandler)
	}
	if rec.Header().Get(xCache) == "" {
		rec.Header().Set(xCache, string(cache.Miss))
	}
	failureOf(err, t).write(rec, r)
}

// answer answers a request by the kind of its target.
func (p *Proxy) answer(w *recorder, r *http.Request, t target) error {
	if t.namespace != "" {
		w.Header().Set("OCI-Namespace", t.namespace)
	}
	switch t.kind {
	case kindManifest:
		return p.pulls.manifest(w, r, t)
	case kindBlob:
		return p.pulls.blob(w, r, t)
	case kindTags:
		return p.lists.tags(w, r, t)
	case kindReferrers:
		return p.lists.referrers(w, r, t)
	}
	w.Header().Set("Docker-Distribution-Api-Version", "registry/2.0")
	sendDocument(w, r, cache.Hit, "application/json", []byte("{}"))
	return nil
}

// targetOf returns what a request is for.
func (p *Proxy) targetOf(r *http.Request) (target, error) {
	if err := p.checkHost(r); err != nil {
		return target{}, err
	}
	if err := origin.CheckSite(r); err != nil {
		return target{}, err
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		return target{}, errReadOnly
	}
	if len(r.URL.RawQuery) > maxQuery {
		return target{}, errQuery
	}
	if strings.Count(r.Header.Get("Range"), ",") >= maxRanges {
		return target{}, errRanges
	}
	rt, err := parseRoute(r.URL.Path, r.URL.Query())
	if err != nil {
		return target{}, err
	}
	return p.resolve(rt)
}

// parseRoute parses the path and the query of a request. It is pure and takes any
// input. The error is an errcode.Error.
func parseRoute(path string, query url.Values) (route, error) {
	if path == "/v2" || path == "/v2/" {
		return route{kind: kindBase}, nil
	}
	rest, ok := strings.CutPrefix(path, "/v2/")
	if !ok {
		return route{}, errNoSuchPath
	}
	repository, kind, reference, ok := splitPath(rest)
	switch {
	case !ok:
		return route{}, errNoSuchPath
	case len(repository) > name.MaxRepository:
		return route{}, errNameTooLong
	}
	rt := route{kind: kind, reference: reference}
	if name.IsRepository(repository) {
		rt.name = repository
	}
	if first, rest, ok := name.CutHost(repository); ok && name.IsRepository(rest) {
		if host, ok := name.ParseHost(first); ok {
			rt.host, rt.rest = host, rest
		}
	}
	if rt.name == "" && rt.host == "" {
		return route{}, errName
	}
	if ns := query.Get("ns"); ns != "" {
		if rt.namespace, ok = name.ParseHost(ns); !ok {
			return route{}, errNamespace
		}
	}
	return withDigest(rt)
}

// splitPath splits what follows /v2/. The fixed words are looked for at its end, since
// a repository may contain them too.
func splitPath(path string) (repository string, k kind, reference string, ok bool) {
	path, reference, ok = cutLast(path)
	if !ok {
		return "", "", "", false
	}
	repository, word, ok := cutLast(path)
	if !ok {
		return "", "", "", false
	}
	switch {
	case word == "manifests":
		return repository, kindManifest, reference, true
	case word == "blobs":
		return repository, kindBlob, reference, true
	case word == "referrers":
		return repository, kindReferrers, reference, true
	case word == "tags" && reference == "list":
		return repository, kindTags, "", true
	}
	return "", "", "", false
}

func cutLast(s string) (before, after string, ok bool) {
	i := strings.LastIndexByte(s, '/')
	if i < 0 {
		return "", "", false
	}
	return s[:i], s[i+1:], true
}

// withDigest checks the reference of a route, and sets its digest if it is one.
func withDigest(rt route) (route, error) {
	switch {
	case rt.kind == kindTags:
		return rt, nil
	case rt.kind == kindManifest && name.IsTag(rt.reference):
		return rt, nil
	case rt.kind == kindManifest && !strings.Contains(rt.reference, ":"):
		return rt, errTag
	}
	dgst := digest.Digest(rt.reference)
	if cache.CheckDigest(dgst) != nil || (dgst.Algorithm() != digest.SHA256 && dgst.Algorithm() != digest.SHA512) {
		return rt, errDigest
	}
	rt.digest = dgst
	return rt, nil
}

// resolve finds the upstream of a route: by the parameter ns, else by a first element
// of the path that is a configured host, else the default.
func (p *Proxy) resolve(rt route) (target, error) {
	t := target{route: rt}
	if rt.kind == kindBase {
		return t, nil
	}
	try := func(host, repository string) bool {
		if host == "" || repository == "" {
			return false
		}
		host = name.CanonicalHost(host)
		repository = name.CompleteRepository(host, repository)
		source, ok := p.upstreams(host, repository)
		if ok {
			t.from(source)
			t.repo = cache.Repository{Upstream: host, Name: repository}
		}
		return ok
	}
	var found bool
	switch {
	case rt.namespace != "" && name.CanonicalHost(rt.namespace) == name.CanonicalHost(rt.host):
		found = try(rt.namespace, rt.rest) // the client names its registry twice
	case rt.namespace != "":
		found = try(rt.namespace, rt.name)
	case try(rt.host, rt.rest):
		found = true
	case rt.host != "" && p.fallback == name.DockerHub:
		// Docker Hub has no such repositories: the host is not configured.
	default:
		t.bare = true
		found = try(p.fallback, rt.name)
	}
	if !found {
		return t, errNoUpstream
	}
	return t, nil
}

// FetchManifest fetches a manifest from its upstream into the cache, unless it is
// cached. It waits for the upstream's timeout at most.
func (p *Proxy) FetchManifest(ctx context.Context, repo cache.Repository, dgst digest.Digest) error {
	t, err := p.contentOf(repo, dgst)
	if err != nil {
		return err
	}
	return p.pulls.fetchManifest(ctx, t)
}

// FetchBlob fetches a blob from its upstream into the cache, unless it is cached, and
// returns when all of it has arrived. The size is in bytes, 0 if it is not known. A
// blob that the cache cannot keep is an error.
func (p *Proxy) FetchBlob(ctx context.Context, repo cache.Repository, dgst digest.Digest, size int64) error {
	t, err := p.contentOf(repo, dgst)
	if err != nil {
		return err
	}
	return p.pulls.fetchBlob(ctx, t, size)
}

// contentOf is the target of content that no client asked for.
func (p *Proxy) contentOf(repo cache.Repository, dgst digest.Digest) (target, error) {
	source, ok := p.upstreams(repo.Upstream, repo.Name)
	if !ok {
		return target{}, fmt.Errorf("%s: %w", repo, errNoUpstream)
	}
	t := target{route: route{digest: dgst}, repo: repo}
	t.from(source)
	return t, nil
}

// Traffic returns what clients were sent. It does not block and is cheap enough to be
// called every second.
func (p *Proxy) Traffic() Traffic { return p.counters.sum() }

// Fills returns the blobs that are being fetched, the oldest first. It does not block
// and is cheap enough to be called every second.
func (p *Proxy) Fills() []Fill { return p.pulls.readers.of(p.store.Fills()) }
