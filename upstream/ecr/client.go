package ecr

import (
	"context"
	"maps"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/larder-registry/larder/upstream/dial"
	"github.com/larder-registry/larder/upstream/guard"
	"github.com/larder-registry/larder/upstream/offline"
	"github.com/larder-registry/larder/upstream/pace"
	"github.com/larder-registry/larder/upstream/patience"
)

// Client has what ECR registries share. It is safe for concurrent use. Making one
// needs no network and no credentials.
type Client struct {
	opts Options

	ctx      context.Context // of the token sources
	cancel   context.CancelFunc
	renewals sync.WaitGroup // goroutines of the token sources

	mu      sync.Mutex // guards what follows
	regions map[regionKey]*region
}

// region is what the ECR registries of a region share, of all accounts.
type region struct {
	api    *api
	tokens *tokens
	gate   *offline.Gate                     // open while one of gates is
	gates  *lru.Cache[string, *offline.Gate] // of the registries, by their names
}

// maxGates bounds the registries of a region whose gates are known, as a pattern for
// hosts may match any number of them. They are those used last.
const maxGates = 256

// newRegion returns a region without API and tokens.
func newRegion() *region {
	gates, _ := lru.New[string, *offline.Gate](maxGates) // fails only for a size that is not positive
	r := &region{gates: gates}
	r.gate = offline.New(r.refusal)
	return r
}

// refusal returns an error if all registries are offline.
func (r *region) refusal() (err error) {
	for _, gate := range r.gates.Values() {
		if err = gate.Check(); err == nil {
			return nil
		}
	}
	return err
}

// regionKey tells regions apart. A token depends on identity and region; a network
// with IPv6 alone reaches only the dual-stack endpoint.
type regionKey struct {
	identity         Identity
	region, endpoint string
	fips, dualStack  bool
	public           bool
}

// maxRegions bounds the regions that are kept, as a pattern for hosts may match
// any number of them.
const maxRegions = 256

// NewClient returns a client. Close ends the goroutines that it starts.
func NewClient(opts Options) *Client {
	if opts.HTTP == nil {
		opts.HTTP = newHTTPClient(opts.Resolver)
	}
	if opts.Places == nil {
		opts.Places = patience.NewPlaces(opts.Log)
	}
	c := &Client{opts: opts, regions: make(map[regionKey]*region)}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	return c
}

// newHTTPClient returns a client for AWS's own services. It is of the SDK's kind,
// which heeds AWS_CA_BUNDLE, and may reach the metadata service, so it has no
// guard. The SDK copies its transport, so its idle connections could not be closed; it
// keeps none, as hours lie between its calls.
func newHTTPClient(resolver *dial.Resolver) aws.HTTPClient {
	dialer := dial.New(dial.Options{Resolver: resolver})
	return awshttp.NewBuildableClient().WithTransportOptions(func(t *http.Transport) {
		t.DisableKeepAlives = true
		t.Proxy = guard.Proxy // never for the metadata service or Pod Identity
		t.DialContext = dialer.DialContext
	})
}

// Close ends the renewal of tokens, and waits for it.
func (c *Client) Close() {
	c.cancel()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.renewals.Wait()
}

// CutOffline ends what is being asked of AWS for regions whose registries are all
// offline.
func (c *Client) CutOffline() {
	c.mu.Lock()
	all := slices.Collect(maps.Values(c.regions))
	c.mu.Unlock()
	for _, r := range all {
		r.gate.Cut()
	}
}

// AWSConfig returns the SDK's configuration for another service of a region, with the credentials that the SDK's chain
// finds. It asks nobody yet. timeout bounds each request of a search for credentials.
func (c *Client) AWSConfig(ctx context.Context, region string, timeout time.Duration) (aws.Config, error) {
	s := session{
		region: region, client: c.opts.HTTP, search: timeout, log: c.opts.Log,
		patient: func(by aws.HTTPClient) aws.HTTPClient { return by },
	}
	return s.load(ctx)
}

// Registry returns a private registry. Readings of its lifecycle policies wait for
// the registry's own limiter, so that they do not add to the throttling of pulls.
func (c *Client) Registry(cfg Config, limiter *pace.Limiter) *Registry {
	region := c.region(cfg)
	return newRegistry(cfg, region.api, region.tokens, limiter, c.opts.Now)
}

// Public returns the logins for ECR Public.
func (c *Client) Public(cfg Config) *PublicLogins {
	return newPublicLogins(c.ctx, c.region(cfg).tokens, c.opts.Log.With("upstream", cfg.Name), c.opts.Now)
}

// region returns what a registry shares with others.
func (c *Client) region(cfg Config) *region {
	r := c.regionOf(cfg)
	r.gates.Add(cfg.Name, cfg.Gate)
	return r
}

func (c *Client) regionOf(cfg Config) *region {
	host := cfg.Host
	key := regionKey{cfg.Identity, host.Region, cfg.APIEndpoint, host.FIPS, host.DualStack, host.Public}
	c.mu.Lock()
	defer c.mu.Unlock()
	if known, ok := c.regions[key]; ok {
		return known
	}
	if len(c.regions) >= maxRegions {
		maps.DeleteFunc(c.regions, func(_ regionKey, r *region) bool { return r.tokens.unused() })
	}
	fresh := newRegion()
	api := newAPI(cfg, c.opts)
	tokens := &tokens{
		ask:     api.privateToken,
		gate:    fresh.gate,
		counter: c.opts.Telemetry.Tokens(host.Region),
		now:     c.opts.Now,
		log:     c.opts.Log.With("region", host.Region),
		ctx:     c.ctx,
		renewer: &c.renewals,
		pauses:  pace.NewBackoff(firstPause, longestPause),
	}
	if host.Public {
		tokens.ask, tokens.optional = api.publicToken, true
		tokens.counter = c.opts.Telemetry.Tokens("public")
		tokens.log = c.opts.Log.With("upstream", cfg.Name)
		tokens.pauses = pace.NewBackoff(firstOptionalPause, longestOptionalPause)
	}
	fresh.api, fresh.tokens = api, tokens
	c.regions[key] = fresh
	return fresh
}
