package config

import (
	"log/slog"
	"time"

	"github.com/larder-registry/larder/upstream/lifecycle"
	"github.com/larder-registry/larder/upstream/name"
)

// Config is a complete, valid configuration, as [Load] returns it. It must not be
// changed. It is safe for concurrent use.
type Config struct {
	// Listen is the host:port on which clients are served. An empty host means
	// every address of the machine, port 0 any free port. Default 127.0.0.1:5000.
	Listen string
	// Admin is the host:port of metrics, health and the status page; "" means
	// that there is none. Default 127.0.0.1:5001.
	Admin string
	// Names are host names and addresses, without ports and in lower case, by which
	// clients may call both listeners beside the listeners' own addresses.
	Names []string

	Cache Cache
	Tags  Tags

	// DefaultUpstream is the host of requests that name none, in lower case; ""
	// means that such requests are not served. One of Upstreams serves it. Default
	// docker.io if that is served.
	DefaultUpstream string
	// Upstreams are the registries that may be asked; no other host ever is.
	// There is at least one, and no two have the same Host. Default: every form
	// of ECR host, ECR Public and Docker Hub. See [Config.Match].
	Upstreams []Upstream

	// Lifecycle are the local lifecycle rules. See [Config.LocalPolicy].
	Lifecycle []LocalRules

	Log       Log
	Telemetry Telemetry
}

// Match returns the upstream that serves a host, which is a host[:port] as a
// client wrote it. Its Endpoint is that of this host. It reports false if no
// upstream serves the host: then it must not be asked.
//
// Case does not matter, and a registry may be called by each of its hosts (see
// [name.CanonicalHost]). If several upstreams match the host, the most specific
// one serves it (see [name.HostPattern.MoreSpecific]), and of equal ones the first.
func (c *Config) Match(host string) (Upstream, bool) {
	host, ok := name.ParseRegistry(host)
	if !ok {
		return Upstream{}, false
	}
	best := -1
	for i := range c.Upstreams {
		p := c.Upstreams[i].Host
		if p.Match(host) && (best < 0 || p.MoreSpecific(c.Upstreams[best].Host)) {
			best = i
		}
	}
	if best < 0 {
		return Upstream{}, false
	}
	u := c.Upstreams[best]
	if u.Host.HasStar() {
		u.Endpoint = defaultEndpoint(host)
	}
	return u, true
}

// LocalPolicy returns the local rules for a repository of a host: the first in
// Lifecycle that match. It reports false if there are none.
func (c *Config) LocalPolicy(host, repository string) (lifecycle.Policy, bool) {
	host, ok := name.ParseRegistry(host)
	if !ok {
		return lifecycle.Policy{}, false
	}
	for _, r := range c.Lifecycle {
		if r.Match.Match(host, repository) {
			return r.Policy, true
		}
	}
	return lifecycle.Policy{}, false
}

// Cache says where the cache is and how large it may become. MaxSize and MinFree
// both hold: the stricter one limits the cache.
type Cache struct {
	// Dir is the absolute path of the cache's folder, which one process owns.
	// Default /var/lib/larder for root, and larder in the user's cache folder
	// (see [os.UserCacheDir]) for others.
	Dir string
	// MaxSize is the largest size of the cache. It is more than 0, and in bytes at
	// least 256MiB. Default 50GiB.
	MaxSize Amount
	// MinFree is how much of the file system the cache leaves free, whatever else
	// uses the file system; it may be 0. Default 5%.
	MinFree Amount
	// LowWater is the size at which eviction ends, as a fraction of MaxSize: above
	// 0, and at most 1. Default 0.9.
	LowWater float64
	// Pin are patterns of images that are never evicted; none if it is empty.
	Pin []name.ImagePattern
	// PinAllPlatforms extends these pins to all platforms of an index, which are
	// fetched, from the platforms that clients pull. Default false.
	PinAllPlatforms bool
	// VerifyOnRead says when content at rest is verified before it is served: "never",
	// "first", before its first use after a start, or "always". Default never.
	VerifyOnRead string
	// ScrubEvery is how often everything in the cache is read and verified in the
	// background; 0 means never. Otherwise it is at least an hour. Default 168h.
	ScrubEvery time.Duration
	// ScrubRate is how many bytes per second the scrub reads, at least 1MiB.
	// Default 20MB.
	ScrubRate Amount
}

// Pins reports whether one of Pin matches an image, given by its full name
// <host>/<repository>:<tag>.
func (c *Cache) Pins(image string) bool {
	for _, p := range c.Pin {
		if p.Match(image) {
			return true
		}
	}
	return false
}

// Tags says how long an answer about a tag may be used. No duration is negative.
type Tags struct {
	// TTL is how long a tag is served without asking the upstream again; 0
	// means that the upstream is asked every time. Default 1m.
	TTL time.Duration
	// StaleIfError is how long after its last check a tag is still served while
	// the upstream cannot be asked; 0 means not at all. Default 720h.
	StaleIfError time.Duration
	// NegativeTTL is how long the cache remembers that a tag does not exist; 0
	// means not at all. Default 10s.
	NegativeTTL time.Duration
}

// LocalRules are lifecycle rules for the cached images of some repositories of
// any registry. They are evaluated with what the cache knows about the images.
type LocalRules struct {
	Match  name.Pattern
	Policy lifecycle.Policy
}

// Log says what is logged, and in which form.
type Log struct {
	Level slog.Level
	// Format is "text" or "json". Default text.
	Format string
}

// Telemetry says which metrics and traces are sent, beside the metrics at Admin.
type Telemetry struct {
	// OTLPEndpoint is the http or https URL of an OpenTelemetry collector, below
	// which /v1/metrics and /v1/traces are; "" means that nothing is sent and
	// nothing is traced.
	OTLPEndpoint string
	// SampleRatio is the part of the requests that are traced, from 0 to 1. A
	// client's own decision comes first. Default 0.05.
	SampleRatio float64
	// RepositoryLabel adds the repository to the metrics of requests.
	RepositoryLabel bool
}
