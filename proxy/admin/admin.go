package admin

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"

	"github.com/larder-registry/larder/cache"
	"github.com/larder-registry/larder/proxy/origin"
	"github.com/larder-registry/larder/proxy/policy"
	"github.com/larder-registry/larder/upstream"
	"github.com/larder-registry/larder/upstream/bucket"
	"github.com/larder-registry/larder/upstream/link"
)

// Options are the settings of an [Admin]. Store and Clients are required.
type Options struct {
	Store   *cache.Store
	Clients Clients
	// CheckHost returns an error for a request to the admin listener whose Host header is
	// not one of that listener. Nil means that every Host is answered.
	CheckHost func(*http.Request) error
	// Upstreams returns the state of the upstreams in use. Nil means none are shown.
	Upstreams func() []upstream.Status
	// Link returns the state of the line to the upstreams. Nil means that it is not shown.
	Link func() link.Status
	// Bucket returns the state of the bucket through which content is shared. Nil means that there is none.
	Bucket func() bucket.Status
	// Peers returns what the status page shows of the other nodes, which is sent to it as JSON: a small value, whatever
	// the number of nodes. Nil means that the page shows nothing of them.
	Peers func() any
	// Policy decides which images are served. Nil means that all are.
	Policy *policy.Policy
	// SetOffline sets an upstream offline or online: by its host or its pattern, or all
	// of them if that is "". The error is fs.ErrNotExist if none has this host. Nil means
	// that none can be set.
	SetOffline func(host string, offline bool) error
	// FetchManifests caches the manifests of all platforms of an image, so that the
	// cache knows how large a pin of all platforms is. Nil means that only cached
	// platforms are counted.
	FetchManifests func(ctx context.Context, repo cache.Repository, reference string) error
	// Ready returns why the daemon takes no requests, or nil if it does. Nil means
	// that it does.
	Ready func() error
	// AuditDegraded returns why the audit is not written, or nil if it is. Nil means that there
	// is no audit.
	AuditDegraded func() error
	// Settings returns the configuration that is in use, without secrets. Nil means that it is not shown.
	Settings func() []Setting
	// Metrics answers /metrics. Nil means that there is no such page.
	Metrics http.Handler
	// Meter makes the metric of what larder mirror has found out. Nil means that there is none.
	Meter metric.MeterProvider
	// Name is the name of this Larder, such as the node's. Version is its version.
	Name, Version string
	// Log is for errors of the status page and the API. Nil means slog.Default().
	Log *slog.Logger
}

// Setting is a key of the configuration and its value.
type Setting struct {
	Key   string `json:"key"`
	Value string `json:"value"`
}

// Admin serves operators. Its methods are safe for concurrent use.
type Admin struct {
	opts Options
	api  *api
	live *live
}

// New returns an Admin. It starts no goroutines: [Admin.Run] has to run while
// [Admin.Handler] is served.
func New(opts Options) *Admin {
	if opts.Log == nil {
		opts.Log = slog.Default()
	}
	if opts.CheckHost == nil {
		opts.CheckHost = func(*http.Request) error { return nil }
	}
	if opts.Ready == nil {
		opts.Ready = func() error { return nil }
	}
	if opts.AuditDegraded == nil {
		opts.AuditDegraded = func() error { return nil }
	}
	if opts.Metrics == nil {
		opts.Metrics = http.NotFoundHandler()
	}
	if opts.Meter == nil {
		opts.Meter = noop.NewMeterProvider()
	}
	m := &monitor{store: opts.Store, clients: opts.Clients, upstreams: opts.Upstreams, link: opts.Link, bucket: opts.Bucket, mirror: new(mirror), policy: opts.Policy}
	if err := m.mirror.measure(opts.Meter.Meter("github.com/larder-registry/larder/proxy/admin")); err != nil {
		opts.Log.Error("whether the runtime pulls through Larder is not measured", "error", err)
	}
	return &Admin{
		opts: opts,
		api:  &api{store: opts.Store, monitor: m, fetchManifests: opts.FetchManifests, setOffline: opts.SetOffline, log: opts.Log},
		live: newLive(opts.Store, m, about{opts.Name, opts.Version, time.Now()}, panelsOf(opts), opts.Log),
	}
}

// panelsOf returns what the status page shows beside the activity.
func panelsOf(opts Options) []panel {
	panels := []panel{{"recent", func() any { return opts.Clients.Recent() }}}
	if opts.Settings != nil {
		panels = append(panels, panel{"settings", func() any { return opts.Settings() }})
	}
	if opts.Peers != nil {
		panels = append(panels, panel{"peers", opts.Peers})
	}
	return panels
}

// Run samples the daemon's activity until ctx ends, and then ends the event streams of
// the status pages. It is called once.
func (a *Admin) Run(ctx context.Context) { a.live.run(ctx) }

// Handler returns the handler of the admin listener. Nothing that it serves changes
// anything.
func (a *Admin) Handler() http.Handler {
	mux := http.NewServeMux()
	addPage(mux, a.live.events)
	mux.Handle("GET /api/v1/image", protect(&details{store: a.opts.Store}))
	mux.Handle("GET /metrics", a.opts.Metrics)
	mux.HandleFunc("GET /healthz", healthz)
	mux.HandleFunc("GET /readyz", readyz(a.opts.Ready, a.opts.Store.Degraded, a.opts.AuditDegraded, a.api.monitor.mirror.unused, a.opts.Upstreams))
	addProfiles(mux)
	return a.guard(mux)
}

// guard refuses what web pages of other sites request. They may link to the status page:
// a browser that follows a link shows the page to its user, and to nobody else.
func (a *Admin) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := a.opts.CheckHost(r); err != nil {
			writeText(w, http.StatusMisdirectedRequest, err.Error())
			return
		}
		isLink := r.URL.Path == "/" && r.Header.Get("Sec-Fetch-Dest") == "document"
		if err := origin.CheckSite(r); err != nil && !isLink {
			writeText(w, http.StatusForbidden, err.Error())
			return
		}
		next.ServeHTTP(w, r)
	})
}

// API returns the handler of /api/v1, with which commands read and change the cache.
// It does not authenticate: serve it where only the operator can connect.
func (a *Admin) API() http.Handler { return a.api.handler() }

// API returns the handler of /api/v1 for a store that no daemon serves. It is like
// [Admin.API], without the daemon's activity.
func API(store *cache.Store) http.Handler { return (&api{store: store}).handler() }
