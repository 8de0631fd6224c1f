package upstream

import (
	"context"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	lru "github.com/hashicorp/golang-lru/v2"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/sync/semaphore"

	"github.com/larder-registry/larder/upstream/auth"
	"github.com/larder-registry/larder/upstream/guard"
	"github.com/larder-registry/larder/upstream/pace"
)

// Options are the settings of a [Client].
type Options struct {
	// Lookup says whether a host is configured, and how. It is the closed world:
	// what it does not know is never dialled.
	Lookup func(host string) (Config, bool)
	// Log is where the client reports. Nil means slog.Default().
	Log *slog.Logger
	// Now is the clock by which tokens age. Nil means time.Now.
	Now func() time.Time
	// Meter has the instruments. Nil means none.
	Meter metric.MeterProvider
	// Tracer begins a span for each request to an upstream. Nil means none.
	Tracer trace.TracerProvider
}

// Client has what all upstreams share: connections and tokens. It is safe for
// concurrent use. Making one needs no network and no credentials.
type Client struct {
	lookup     func(host string) (Config, bool)
	log        *slog.Logger
	now        func() time.Time
	metrics    *metrics
	transports *guard.Transports
	limits     *pace.Limits
	aws        aws.HTTPClient

	ctx      context.Context // of the token sources
	cancel   context.CancelFunc
	renewals sync.WaitGroup // goroutines of the token sources

	mu         sync.Mutex // guards what follows
	registries *lru.Cache[string, *Registry]
	regions    map[regionKey]ecrRegion
}

// ecrRegion is what the ECR registries of a region share, of all accounts.
type ecrRegion struct {
	api    *ecrAPI
	tokens *tokenSource
}

// regionKey is what a token depends on, and by which of the region's endpoints
// it is got: a network with IPv6 alone reaches the dual-stack one only.
type regionKey struct {
	identity         Identity
	region, endpoint string
	fips, dualStack  bool
	public           bool
}

// maxRegistries bounds the hosts kept at once, as a pattern may match any
// number of them.
const maxRegistries = 256

// NewClient returns a client. Close ends what it runs.
func NewClient(opts Options) *Client { return newClient(opts, guard.NewTransports(guard.Options{})) }

func newClient(opts Options, trs *guard.Transports) *Client {
	if opts.Log == nil {
		opts.Log = slog.Default()
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	registries, _ := lru.New[string, *Registry](maxRegistries) // fails only for a size that is not positive
	c := &Client{
		lookup:     opts.Lookup,
		log:        opts.Log,
		now:        opts.Now,
		transports: trs,
		limits:     pace.NewLimits(),
		registries: registries,
		regions:    make(map[regionKey]ecrRegion),
	}
	var err error
	if c.metrics, err = newMetrics(c, opts); err != nil {
		c.log.Error("there are no metrics of upstreams", "error", err)
		c.metrics, _ = newMetrics(c, Options{}) // which has nothing that fails
	}
	c.aws = newAWSClient()
	c.ctx, c.cancel = context.WithCancel(context.Background())
	return c
}

// newAWSClient returns a client for AWS's own services. It is of the SDK's kind,
// which heeds AWS_CA_BUNDLE, and may talk to the metadata service, so it has no
// guard. It copies its transport, whose idle connections nobody could close: it
// has none, as hours lie between its calls.
func newAWSClient() aws.HTTPClient {
	dialer := net.Dialer{Timeout: pace.DialTimeout}
	down := pace.NewOutages()
	return awshttp.NewBuildableClient().WithTransportOptions(func(t *http.Transport) {
		t.DisableKeepAlives = true
		t.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
			return down.Dial(ctx, addr, func() (net.Conn, error) { return dialer.DialContext(ctx, network, addr) })
		}
	})
}

// Close ends the renewal of tokens and closes idle connections. Requests still
// running should have ended.
func (c *Client) Close() error {
	c.cancel()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.renewals.Wait()
	c.transports.Close()
	return c.metrics.close()
}

// Registry returns the upstream for a host, and fs.ErrNotExist where none is
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

func (c *Client) newRegistry(cfg Config) (*Registry, error) {
	raw := cfg.Endpoint
	if raw == "" {
		raw = "https://" + cfg.Host
	}
	endpoint, err := url.Parse(raw)
	if err != nil {
		return nil, fmt.Errorf("upstream %s: endpoint: %w", cfg.Host, err)
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = 20 * time.Second
	}
	calls := c.metrics.caller(nameOf(cfg))
	r := newRegistry(cfg, c.authorizer(cfg, endpoint, calls), c.transports, c.limits, endpoint, c.log)
	r.calls = calls
	return r, c.addReplicas(r, cfg)
}

// authorizer picks how to authenticate: credentials that are configured come
// before what the host's name suggests.
func (c *Client) authorizer(cfg Config, endpoint *url.URL, calls *caller) authorizer {
	var l auth.Logins = auth.Password{Username: cfg.Username, File: cfg.PasswordFile}
	if cfg.DockerConfig != "" {
		l = auth.NewDockerConfig(cfg.DockerConfig, endpoint)
	}
	host, isECR := ParseECRHost(cfg.Host)
	if cfg.ECR.Region != "" {
		host.Region, isECR = cfg.ECR.Region, true
	}
	log := c.log.With("upstream", cfg.Host)
	if isECR && cfg.Username == "" && cfg.DockerConfig == "" {
		region := c.region(host, cfg)
		if !host.Public {
			return &ecrAuth{source: region.tokens, api: region.api, account: host.Account, refusals: auth.NewRefusals(c.now)}
		}
		l = &publicLogins{source: region.tokens, ctx: c.ctx, log: log, refusals: auth.NewRefusals(c.now)}
	}
	tr := c.transports.For(endpoint)
	return auth.New(auth.Options{
		Endpoint: endpoint, Logins: l, Transport: tokenTransport{tr, calls, log}, Check: tr, Timeout: cfg.Timeout, Log: log,
	})
}

// region returns what a registry shares with others. c.mu is held.
func (c *Client) region(host ECRHost, cfg Config) ecrRegion {
	key := regionKey{cfg.ECR.Identity, host.Region, cfg.ECR.APIEndpoint, host.FIPS, host.DualStack, host.Public}
	if region, ok := c.regions[key]; ok {
		return region
	}
	api := &ecrAPI{
		session: &awsSession{
			identity:  cfg.ECR.Identity,
			region:    host.Region,
			fips:      host.FIPS,
			dualStack: host.DualStack,
			client:    c.aws,
			log:       c.log,
		},
		endpoint: cfg.ECR.APIEndpoint,
		timeout:  cfg.Timeout,
		now:      c.now,
		caller:   c.metrics.caller("ECR API " + c.metrics.regionLabel(host.Region)),
		calls:    pace.NewLimiter("the ECR API of "+host.Region, 0),
		reading:  semaphore.NewWeighted(1),
	}
	if len(c.regions) >= maxRegistries {
		maps.DeleteFunc(c.regions, func(_ regionKey, r ecrRegion) bool { return r.tokens.unused() })
	}
	tokens := &tokenSource{
		pauses: pace.NewBackoff(firstPause, maxPause),
		ask:    c.metrics.watched(host.Region, api.token),
		now:    c.now,
		log:    c.log.With("region", host.Region),
		ctx:    c.ctx,

		renewer: &c.renewals,
	}
	if host.Public {
		tokens.ask, tokens.optional = c.metrics.watched(publicRegion, api.publicToken), true
		tokens.pauses = pace.NewBackoff(firstOptionalPause, maxOptionalPause)
		tokens.log = c.log.With("upstream", cfg.Host)
	}
	region := ecrRegion{api: api, tokens: tokens}
	c.regions[key] = region
	return region
}

// tokenTransport sends requests to a token service, and counts them.
type tokenTransport struct {
	*guard.Transport
	calls *caller
	log   *slog.Logger
}

// RoundTrip is for http.RoundTripper.
func (t tokenTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	req, call := t.calls.begin(req, toTokens)
	resp, err := t.Transport.RoundTrip(req)
	call.end(resp, err)
	guard.LogRefusal(t.log, err)
	return resp, err
}
