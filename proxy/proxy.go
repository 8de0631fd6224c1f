package proxy

import (
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"

	"github.com/larder-registry/larder/cache"
	"github.com/larder-registry/larder/proxy/access"
	"github.com/larder-registry/larder/proxy/audit"
	"github.com/larder-registry/larder/proxy/origin"
	"github.com/larder-registry/larder/proxy/policy"
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
	// Upstreams returns the upstream for a host. The error is [ErrNotConfigured] or
	// [ErrNotAllowed], or says why the upstream cannot be used. No other upstreams exist.
	Upstreams func(host, repository string) (Source, error)
	// Default is the host for requests that name none. Empty means that such requests
	// fail.
	Default string
	Store   *cache.Store
	// CheckHost returns an error, origin.ErrHost, for a request whose Host header is
	// not one of the listener. Nil means that every Host is answered.
	CheckHost func(*http.Request) error
	// Authenticate returns the user name of a client, and an error, password.ErrUnauthorized or
	// password.ErrMalformed, for a request of one that may not come in. Nil means that all may.
	Authenticate func(*http.Request) (user string, err error)
	// Access decides what clients get of the upstreams with Source.As, and Realm is the URL of
	// their challenges, "" for the one that the client has used. Nil means that there are no such
	// upstreams.
	Access *access.Gate
	Realm  string
	// Policy decides which images are served. Nil means that all are.
	Policy *policy.Policy
	// Audit gets one line for each decision about an image. Nil means that there is no audit.
	Audit *audit.Log
	// ForPeers answers other caches, whose requests are for what their own clients want: they are told how
	// old an answer is (Age), and a blob is not asked for before it is fetched.
	ForPeers bool
	// StatusPage is the URL of the status page, which the root of the listener names; "" for none.
	StatusPage string
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
	upstreams func(host, repository string) (Source, error)
	fallback  string // the host for requests that name none
	checkHost func(*http.Request) error
	userOf    func(*http.Request) (string, error)
	store     *cache.Store
	rights    rights
	pulls     pulls
	lists     lists

	welcome []byte // the answer at the root

	log      requestLog
	metrics  *metrics
	traces   traces
	counters counters
	refusals *refusals
	recent   *recent
}

// New returns a proxy. It starts no goroutines.
func New(opts Options) *Proxy {
	if opts.Log == nil {
		opts.Log = slog.Default()
	}
	if opts.CheckHost == nil {
		opts.CheckHost = func(*http.Request) error { return nil }
	}
	if opts.Authenticate == nil {
		opts.Authenticate = func(*http.Request) (string, error) { return "", nil }
	}
	documents := newMemory()
	p := &Proxy{
		upstreams: opts.Upstreams,
		fallback:  opts.Default,
		checkHost: opts.CheckHost,
		userOf:    opts.Authenticate,
		store:     opts.Store,
		pulls:     pulls{store: opts.Store, memory: documents, audit: opts.Audit, judge: newJudge(opts.Policy, opts.Store), forPeers: opts.ForPeers},
		lists:     lists{store: opts.Store, memory: documents, forPeers: opts.ForPeers},
		welcome:   welcome(opts.StatusPage),
		log:       requestLog{opts.Log},
		recent:    newRecent(),
		traces:    newTraces(opts.Tracer),
	}
	var err error
	if p.metrics, err = newMetrics(opts.Meter, opts.RepositoryLabel, &p.counters.runtimes); err != nil {
		opts.Log.Error("requests are not measured", "error", err)
		p.metrics, _ = newMetrics(nil, false, &p.counters.runtimes) // never fails
	}
	p.rights = rights{gate: opts.Access, realm: opts.Realm, resolve: p.resolve, memory: documents, metrics: p.metrics}
	if p.refusals, err = newRefusals(opts.Meter); err != nil {
		opts.Log.Error("refused requests are not measured", "error", err)
		p.refusals, _ = newRefusals(nil) // never fails
	}
	return p
}

// welcome tells people who open the listener where they are.
func welcome(statusPage string) []byte {
	text := "This is Larder, a cache for container images. Container runtimes pull here, below /v2/.\n"
	if statusPage != "" {
		text += "Its status page is " + statusPage + "\n"
	}
	return []byte(text)
}

// ServeHTTP answers one request, and logs, counts and traces it.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	rec := &recorder{ResponseWriter: w, start: time.Now()}
	p.metrics.active.Add(1)
	defer p.metrics.active.Add(-1)
	r, span := p.traces.start(r)
	var t target
	left := false
	defer func() {
		aborted := recover()
		p.counters.count(rec, t, r.UserAgent(), aborted != nil)
		p.refusals.note(rec.err)
		p.recent.note(r, rec, t, aborted != nil)
		p.metrics.count(rec, t, aborted != nil)
		p.traces.end(span, r, rec, t, aborted != nil)
		p.log.write(r, rec, t, time.Since(rec.start), aborted != nil)
		if aborted != nil {
			panic(aborted)
		}
		if left {
			// A client that has only stopped sending would take net/http's own end of
			// the response, such as an empty 200, for the answer.
			panic(http.ErrAbortHandler)
		}
	}()
	var err error
	if t, err = p.targetOf(r); err == nil {
		t, err = p.answer(rec, r, t)
	}
	if left = err != nil && hasLeft(r, err); left || err == nil {
		return
	}
	rec.err = err
	p.pulls.auditRefused(rec, r, t, err)
	if rec.status != 0 {
		// The headers are out: only a cut connection tells the client.
		panic(http.ErrAbortHandler)
	}
	if rec.Header().Get(xCache) == "" {
		rec.Header().Set(xCache, string(cache.Miss))
	}
	failureOf(err, t).write(rec, r)
}

// answer answers a request by the kind of its target. It returns the target as that of its client.
func (p *Proxy) answer(w *recorder, r *http.Request, t target) (target, error) {
	if t.namespace != "" {
		w.Header().Set("OCI-Namespace", t.namespace)
	}
	t, err := p.rights.check(w, r, t)
	if err != nil {
		return t, err
	}
	return t, p.send(w, r, t)
}

// send answers a request that its client may make.
func (p *Proxy) send(w *recorder, r *http.Request, t target) error {
	switch t.kind {
	case kindRoot:
		if p.pulls.forPeers { // another node is no person
			return errNoSuchPath
		}
		sendDocument(w, r, cache.Hit, "text/plain; charset=utf-8", p.welcome)
		return nil
	case kindToken:
		return p.rights.token(w, r)
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
	user, err := p.userOf(r)
	if err != nil {
		return target{}, err
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead && (r.Method != http.MethodPost || r.URL.Path != access.TokenPath) {
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
	t, err := p.resolve(rt)
	t.user = user
	t.client = clientAddress(r)
	return t, err
}

// resolve finds the upstream of a route: by the parameter ns, else by a first element
// of the path that is a configured host, else the default.
func (p *Proxy) resolve(rt route) (target, error) {
	t := target{route: rt}
	if rt.kind == kindRoot || rt.kind == kindBase || rt.kind == kindToken {
		return t, nil
	}
	// try returns a refusal if the host has no upstream for the repository.
	try := func(host, repository string) error {
		host = name.CanonicalHost(host)
		repository = name.CompleteRepository(host, repository)
		source, err := p.upstreams(host, repository)
		if err != nil {
			return refusalOf(host, repository, err)
		}
		t.source = source
		t.repo = cache.Repository{Upstream: host, Name: repository}
		return nil
	}
	switch {
	case rt.namespace != "" && name.CanonicalHost(rt.namespace) == name.CanonicalHost(rt.host):
		return t, try(rt.namespace, rt.rest) // the client names its registry twice
	case rt.namespace != "" && rt.name == "":
		return t, errNoSuchPath
	case rt.namespace != "":
		return t, try(rt.namespace, rt.name)
	case rt.host != "":
		err := try(rt.host, rt.rest)
		// Docker Hub has no repositories that begin with a host.
		if err == nil || rt.name == "" || p.fallback == "" || p.fallback == name.DockerHub || !errors.Is(err, ErrNotConfigured) {
			return t, err
		}
	}
	t.bare = true
	if p.fallback == "" {
		return t, refusalOf("", rt.name, nil)
	}
	return t, try(p.fallback, rt.name)
}

// Traffic returns what clients were sent. It does not block and is cheap enough to be
// called every second.
func (p *Proxy) Traffic() Traffic { return p.counters.sum() }

// Refusals returns which registries clients asked for in vain, the latest first. It does not
// block and is cheap enough to be called every second.
func (p *Proxy) Refusals() []Refusal { return p.refusals.list() }

// Recent returns the last requests. It does not block and is cheap enough to be called every second.
func (p *Proxy) Recent() Recent { return p.recent.list() }

// Fills returns the blobs that are being fetched, the oldest first. It does not block
// and is cheap enough to be called every second.
func (p *Proxy) Fills() []Fill { return p.pulls.readers.of(p.store.Fills()) }
