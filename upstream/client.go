package upstream

import (
	"cmp"
	"context"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	lru "github.com/hashicorp/golang-lru/v2"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"

	"github.com/larder-registry/larder/upstream/auth"
	"github.com/larder-registry/larder/upstream/dial"
	"github.com/larder-registry/larder/upstream/ecr"
	"github.com/larder-registry/larder/upstream/guard"
	"github.com/larder-registry/larder/upstream/link"
	"github.com/larder-registry/larder/upstream/name"
	"github.com/larder-registry/larder/upstream/offline"
	"github.com/larder-registry/larder/upstream/pace"
	"github.com/larder-registry/larder/upstream/patience"
	"github.com/larder-registry/larder/upstream/redact"
	"github.com/larder-registry/larder/upstream/telemetry"
)

// Options are the settings of a [Client].
type Options struct {
	// Lookup says whether a host is configured, and how. The client dials no other
	// upstream.
	Lookup func(host string) (Config, bool)
	// Offline reports whether an upstream, by its host, must not be asked now. It is
	// called before each request and must not block. Nil means that none is offline.
	// See [Client.CutOffline].
	Offline func(host string) bool
	// Link is the line that all upstreams share. Nil means that it is not bounded.
	Link *link.Link
	// Resolver looks up the names of hosts. Nil means one of dial.NewResolver.
	Resolver *dial.Resolver
	// Log is where the client reports. Nil means slog.Default().
	Log *slog.Logger
	// Now is the clock by which tokens age. Nil means time.Now.
	Now func() time.Time
	// Meter has the instruments. Nil means none.
	Meter metric.MeterProvider
	// Tracer begins a span for each request to an upstream. Nil means none.
	Tracer trace.TracerProvider
}

// Client has what all upstreams share: connections, limits and tokens. It is safe
// for concurrent use. Making one needs no network and no credentials.
type Client struct {
	lookup     func(host string) (Config, bool)
	offline    func(host string) bool
	link       *link.Link // may be nil
	log        *slog.Logger
	telemetry  *telemetry.Telemetry
	transports *guard.Transports
	limits     *pace.Limits
	places     *patience.Places
	ecr        *ecr.Client

	mu         sync.Mutex // guards what follows
	registries *lru.Cache[string, *Registry]
}

// maxRegistries bounds the registries that are kept, as a pattern may match any
// number of hosts.
const maxRegistries = 256

// network is the connections of a client. Tests replace it.
type network struct {
	transports *guard.Transports
	aws        aws.HTTPClient // nil means a client of the SDK's kind
}

// NewClient returns a client. Close ends its goroutines.
func NewClient(opts Options) *Client {
	return newClient(opts, network{transports: guard.NewTransports(guard.Options{Resolver: opts.Resolver})})
}

func newClient(opts Options, via network) *Client {
	if opts.Log == nil {
		opts.Log = slog.Default()
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	if opts.Offline == nil {
		opts.Offline = func(string) bool { return false }
	}
	registries, _ := lru.New[string, *Registry](maxRegistries) // fails only for a size that is not positive
	c := &Client{
		lookup:     opts.Lookup,
		offline:    opts.Offline,
		link:       opts.Link,
		log:        opts.Log,
		transports: via.transports,
		limits:     pace.NewLimits(),
		places:     patience.NewPlaces(opts.Log),
		registries: registries,
	}
	var err error
	c.telemetry, err = telemetry.New(telemetry.Options{Meter: opts.Meter, Tracer: opts.Tracer, Now: opts.Now, RateLimits: c.rateLimits})
	if err != nil {
		c.log.Error("there are no metrics of upstreams", "error", err)
		c.telemetry, _ = telemetry.New(telemetry.Options{}) // has nothing that fails
	}
	c.ecr = ecr.NewClient(ecr.Options{HTTP: via.aws, Resolver: via.transports.Resolver(), Log: c.log, Now: opts.Now, Telemetry: c.telemetry, Places: c.places})
	return c
}

// Close ends the renewal of tokens and closes idle connections. No request may run
// any more.
func (c *Client) Close() error {
	c.ecr.Close()
	c.transports.CloseIdle()
	return c.telemetry.Close()
}

// Registry returns the upstream for a host. The error is fs.ErrNotExist if none is
// configured.
func (c *Client) Registry(host string) (*Registry, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if r, ok := c.registries.Get(host); ok {
		return r, nil
	}
	cfg, ok := c.lookup(host)
	if !ok {
		return nil, fmt.Errorf("upstream %q is not configured: %w", host, fs.ErrNotExist)
	}
	r, err := c.newRegistry(cfg)
	if err != nil {
		return nil, err
	}
	c.registries.Add(host, r)
	return r, nil
}

// newRegistry makes a registry and its replicas. Each has its own credentials,
// limits and signed URLs, for its own host alone.
func (c *Client) newRegistry(cfg Config) (*Registry, error) {
	primary, err := c.newMember(cfg)
	if err != nil {
		return nil, err
	}
	members := group{primary}
	for _, host := range cfg.ECR.Replicas {
		replica, err := c.newMember(c.replicaConfig(host, cfg))
		if err != nil {
			return nil, fmt.Errorf("replica of %s: %w", cfg.Host, err)
		}
		members = append(members, replica)
	}
	return &Registry{members: members, imports: ecr.NewPullThrough(cfg.ECR.PullThrough), slots: newSlots(primary.host), link: c.link}, nil
}

// replicaConfig returns the configuration of a replica of a registry with cfg.
func (c *Client) replicaConfig(host string, cfg Config) Config {
	own, ok := c.lookup(host)
	if !ok {
		own = Config{Host: host, Timeout: cfg.Timeout}
	}
	if own.ECR.Identity == (ecr.Identity{}) {
		own.ECR.Identity = cfg.ECR.Identity
	}
	return own
}

// newMember makes one registry without replicas.
func (c *Client) newMember(cfg Config) (*member, error) {
	cfg, endpoint, err := cfg.complete()
	if err != nil {
		return nil, err
	}
	s := &site{
		host:      cfg.Host,
		endpoint:  endpoint,
		timeout:   cfg.Timeout,
		transport: c.transports.For(endpoint),
		places:    c.places,
		gate:      offline.New(func() error { return c.refusal(cfg.Host) }),
		elsewhere: c.refusal,
		link:      c.link,
		counter:   c.telemetry.Upstream(cfg.Name),
		sent:      redact.NewMemory(),
		log:       c.log.With("upstream", cfg.Host),
	}
	s.guests = newGuests(func(registry *url.URL) *auth.Challenged {
		return auth.New(auth.Options{
			Endpoint: registry, Logins: auth.Password{}, Transport: tokenTransport{s}, Check: s.transport, Timeout: s.timeout, Log: s.log,
		})
	})
	s.throttle = newThrottle(s.host, c.limits, s.timeout, s.counter)
	c.authenticate(s, cfg)
	return newMember(s), nil
}

// authenticate sets how requests to a site authenticate: a configured login comes
// before the one that the host's name suggests.
func (c *Client) authenticate(s *site, cfg Config) {
	open := func(logins auth.Logins) *auth.Challenged {
		return auth.New(auth.Options{
			Endpoint: s.endpoint, Logins: logins, Transport: tokenTransport{s}, Check: s.transport,
			Realms: cfg.Realms, Timeout: s.timeout, Log: s.log,
		})
	}
	s.clients = newClients(open)
	var logins auth.Logins = auth.Password{Username: cfg.Username, File: cfg.PasswordFile}
	if cfg.DockerConfig != "" {
		logins = auth.NewDockerConfig(cfg.DockerConfig, s.endpoint)
	}
	host, isECR := name.ParseECR(cfg.Host)
	if cfg.ECR.Region != "" {
		host.Region, isECR = cfg.ECR.Region, true
	}
	if isECR && cfg.Username == "" && cfg.DockerConfig == "" {
		settings := ecr.Config{
			Name: cfg.Host, Host: host, Identity: cfg.ECR.Identity, APIEndpoint: cfg.ECR.APIEndpoint, Timeout: cfg.Timeout, Gate: s.gate,
		}
		if !host.Public {
			s.ecr = c.ecr.Registry(settings, s.throttle.requests)
			s.configured = &authenticator{credentials: s.ecr}
			return
		}
		logins = c.ecr.Public(settings)
	}
	challenged := open(logins)
	s.configured = &authenticator{credentials: challenged, challenged: challenged}
}

// tokenTransport sends requests to the token service of a site, and counts them.
type tokenTransport struct{ site *site }

// maxTokenAnswer bounds the part of a token service's answer that is awaited, in bytes.
const maxTokenAnswer = 1 << 20

// RoundTrip is for http.RoundTripper. As a request for a token changes nothing, it may
// be sent twice.
func (t tokenTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := t.site.places.Of(req.URL.Host).Ask(req.Context(), patience.Question{
		Timeout:  t.site.timeout,
		Repeated: t.site.repeated,
		Send: func(ctx context.Context, fresh bool) (*http.Response, error) {
			out := req.Clone(ctx)
			if req.GetBody != nil {
				var err error
				if out.Body, err = req.GetBody(); err != nil {
					return nil, err
				}
			}
			return t.site.roundTrip(out, telemetry.Token, fresh, maxTokenAnswer)
		},
	})
	guard.LogRefusal(t.site.log, err)
	return resp, err
}

// refusal returns an [offline.Error] for a host that is offline, and nil for any other.
func (c *Client) refusal(host string) error {
	if c.offline(host) {
		return &offline.Error{Host: host}
	}
	return nil
}

// Postponed returns an [offline.Error] for the host of an upstream that is offline, and nil
// for any other. What is done without a client asks it first, so that it fails in silence.
func (c *Client) Postponed(host string) error { return c.refusal(host) }

// FetchPostponed is Postponed for what is fetched though no client waits for it: it returns a
// [link.ClosedError] outside of the hours too.
func (c *Client) FetchPostponed(host string) error {
	if err := c.refusal(host); err != nil {
		return err
	}
	return c.link.Postponed()
}

// CutOffline ends what is being asked of upstreams that are offline, and closes idle
// connections. It is called when Options.Offline has begun to report another one.
func (c *Client) CutOffline() {
	for _, r := range c.all() {
		for _, m := range r.members {
			m.gate.Cut()
		}
	}
	c.ecr.CutOffline()
	c.transports.CloseIdle()
}

// all returns the registries that are kept.
func (c *Client) all() []*Registry {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.registries.Values()
}

// rateLimits returns, by the names that metrics have for upstreams, the last rate
// limit of the one with the fewest pulls left, as a pattern is one name for many
// hosts.
func (c *Client) rateLimits() map[string]pace.RateLimit {
	limits := make(map[string]pace.RateLimit)
	for _, r := range c.all() {
		limit, ok := r.RateLimit()
		if !ok {
			continue
		}
		key := r.members.primary().counter.Name()
		if other, known := limits[key]; !known || limit.Remaining < other.Remaining {
			limits[key] = limit
		}
	}
	return limits
}

// Status returns the state of each upstream in use, sorted by host. It returns at
// once, and may be called every second.
func (c *Client) Status() []Status {
	registries := c.all()
	all := make(map[string]Status)
	for _, r := range registries {
		for _, replica := range r.members.replicas() {
			if _, known := all[replica.host]; !known {
				st := replica.status()
				st.ReplicaOf = r.members.primary().host
				all[replica.host] = st
			}
		}
	}
	for _, r := range registries {
		primary := r.members.primary()
		all[primary.host] = primary.status()
	}
	sorted := make([]Status, 0, len(all))
	for _, st := range all {
		sorted = append(sorted, st)
	}
	slices.SortFunc(sorted, func(a, b Status) int { return cmp.Compare(a.Host, b.Host) })
	return sorted
}
