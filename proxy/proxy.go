package proxy

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/distribution/distribution/v3/registry/api/errcode"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"

	"github.com/larder-registry/larder/cache"
)

// Upstream is what the proxy needs of a registry. Errors are fs.ErrNotExist
// where the registry has no such thing and fs.ErrPermission where it refuses;
// they may have the registry's own errcode.Error in their chain, and methods
// Throttled() bool, RetryAfter() time.Duration, and DenialAttrs() []slog.Attr for
// the log line of a refusal.
type Upstream interface {
	// Manifest returns a manifest by tag or digest; with head its descriptor
	// alone is enough.
	Manifest(ctx context.Context, repository, reference string, head bool) (ocispec.Descriptor, []byte, error)
	// Blob opens n bytes at off and tells the size of the whole; whole says that
	// the body is the entire blob instead. With n = 0 it tells only whether the
	// repository has the blob, and its size, or -1. With spare it fails rather
	// than wait.
	Blob(ctx context.Context, repository string, dgst digest.Digest, off, n int64, spare bool) (body io.ReadCloser, size int64, whole bool, err error)
	// List returns a page of tags/list or referrers/<digest>.
	List(ctx context.Context, repository, resource string, query url.Values) (http.Header, []byte, error)
}

// Source is an upstream, and how long a client waits for it at most.
type Source struct {
	Upstream
	Timeout time.Duration
	// Name is what metrics call it: one of few, where hosts may be many. Empty
	// means the host.
	Name string
}

// Options are the settings of a [Proxy]. Upstreams and Store are required.
type Options struct {
	// Upstreams returns the upstream for a host, if it is configured and serves
	// the repository. It is the closed world.
	Upstreams func(host, repository string) (Source, bool)
	// Default is the host that is meant where a client names none; "" for none.
	Default string
	Store   *cache.Store
	// Log gets a line a request. Nil means slog.Default().
	Log *slog.Logger
	// Meter has the instruments. Nil means none.
	Meter metric.MeterProvider
	// RepositoryLabel adds the repository to the metrics of requests, for the
	// first hundred of them.
	RepositoryLabel bool
	// Tracer begins a span for each request. Nil means none.
	Tracer trace.TracerProvider
}

// Proxy answers /v2. It is an http.Handler for HTTP/1.1.
type Proxy struct {
	opts    Options
	store   *cache.Store
	log     *slog.Logger
	metrics *metrics
	tracer  trace.Tracer // nil for none

	spanOptions []trace.SpanStartOption // made once
	counters    counters
	readers     readers
}

// New returns a proxy. It starts no goroutines.
func New(opts Options) *Proxy {
	if opts.Log == nil {
		opts.Log = slog.Default()
	}
	p := &Proxy{opts: opts, store: opts.Store, log: opts.Log}
	if opts.Tracer != nil {
		p.tracer = opts.Tracer.Tracer("github.com/larder-registry/larder/proxy")
		p.spanOptions = []trace.SpanStartOption{trace.WithSpanKind(trace.SpanKindServer)}
	}
	var err error
	if p.metrics, err = newMetrics(opts.Meter, opts.RepositoryLabel); err != nil {
		p.log.Error("there are no metrics of requests", "error", err)
		p.metrics, _ = newMetrics(nil, false) // which has nothing that fails
	}
	return p
}

// Traffic returns what clients were sent. It does not block and is cheap enough to be
// called every second.
func (p *Proxy) Traffic() Traffic { return p.counters.sum() }

// Fills returns the blobs that are being fetched, the oldest first. It does not block
// and is cheap enough to be called every second.
func (p *Proxy) Fills() []Fill { return p.readers.of(p.store.Fills()) }

// target is a request with its upstream.
type target struct {
	route
	repo     cache.Repository
	upstream Upstream // nil while none is found
	timeout  time.Duration
	label    string // of the upstream, in metrics
	bare     bool   // the client named no registry: classic Docker
}

// ServeHTTP answers one request and writes one log line for it.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	rec := &recorder{ResponseWriter: w, start: time.Now()}
	p.metrics.active.Add(1)
	defer p.metrics.active.Add(-1)
	r, span := p.startSpan(r)
	var t target
	defer func() {
		aborted := recover()
		p.counters.count(rec, t, aborted != nil)
		p.metrics.count(rec, t, aborted != nil)
		endSpan(span, r, rec, t, aborted != nil)
		p.logRequest(r, rec, t, time.Since(rec.start), aborted != nil)
		if aborted != nil {
			panic(aborted)
		}
	}()
	var err error
	if t, err = p.route(r); err == nil {
		err = p.handle(rec, r, t)
	}
	if err == nil || isGone(r, err) {
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
	describe(err, t).write(rec, r)
}

// route finds what a request asks for, and of whom.
func (p *Proxy) route(r *http.Request) (target, error) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		return target{}, errcode.ErrorCodeUnsupported.WithMessage("this is a pull-through cache: push to the upstream itself")
	}
	rt, err := parseRoute(r.URL.Path, r.URL.Query())
	if err != nil {
		return target{}, err
	}
	return p.resolve(rt)
}

// resolve picks the upstream: the ns parameter, else a first path element that
// is a configured host, else the default.
func (p *Proxy) resolve(rt route) (target, error) {
	t := target{route: rt}
	if rt.kind == kindBase {
		return t, nil
	}
	try := func(host, name string) bool {
		if host == "" || name == "" {
			return false
		}
		if host == dockerHub && !strings.Contains(name, "/") {
			name = "library/" + name // as Docker reads the short names of its own images
		}
		source, ok := p.opts.Upstreams(host, name)
		if ok {
			t.upstream, t.timeout, t.label = source.Upstream, source.Timeout, source.Name
			t.repo = cache.Repository{Upstream: host, Name: name}
		}
		return ok
	}
	var known bool
	switch {
	case rt.namespace != "":
		known = try(rt.namespace, rt.name)
	case try(rt.host, rt.rest):
		known = true
	case rt.host != "" && p.opts.Default == dockerHub:
		// Docker Hub has no such names: it is a host that is not configured.
	default:
		t.bare = true
		known = try(p.opts.Default, rt.name)
	}
	if !known {
		return t, errcode.ErrorCodeNameUnknown.WithMessage("no configured upstream serves this repository")
	}
	return t, nil
}

const dockerHub = "docker.io"

func (p *Proxy) handle(w *recorder, r *http.Request, t target) error {
	if t.namespace != "" {
		w.Header().Set("OCI-Namespace", t.namespace)
	}
	switch t.kind {
	case kindManifest:
		return p.manifest(w, r, t)
	case kindBlob:
		return p.blob(w, r, t)
	case kindTags:
		return p.tags(w, r, t)
	case kindReferrers:
		return p.referrers(w, r, t)
	}
	return p.base(w, r)
}

// base answers /v2/, by which clients find out that this is a registry.
func (p *Proxy) base(w *recorder, r *http.Request) error {
	h := w.Header()
	h.Set("Docker-Distribution-Api-Version", "registry/2.0")
	return document(w, r, cache.Hit, "application/json", []byte("{}"))
}

// document sends something small in one piece.
func document(w *recorder, r *http.Request, state cache.State, mediaType string, body []byte) error {
	h := w.Header()
	setLength(h, len(body))
	h.Set("Content-Type", mediaType)
	h.Set(xCache, string(state))
	w.WriteHeader(http.StatusOK)
	if r.Method == http.MethodHead {
		return nil
	}
	_, err := w.Write(body)
	return err
}
