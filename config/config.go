package config

import (
	"fmt"
	"log/slog"
	"slices"
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

	// TLS is how clients are served over HTTPS.
	TLS TLS
	// Auth is never set together with an upstream of AccessClient, nor beyond loopback without
	// TLS.
	Auth ClientAuth

	Cache  Cache
	Tags   Tags
	Link   Link
	Import Import
	Access Access
	Audit  Audit
	Peers  Peers
	Shared Shared

	// DefaultUpstream is the host of requests that name none, in lower case; ""
	// means that such requests are not served. One of Upstreams serves it. Default
	// docker.io if that is served.
	DefaultUpstream string
	// Upstreams are the registries that may be asked; no other host ever is.
	// There is at least one, and no two have the same Host. Default: every form
	// of ECR host, ECR Public and Docker Hub. See [Config.Match].
	Upstreams []Upstream

	// Keep are images that are always here. No image is in two of them.
	Keep []Keep

	// Policy are the rules about which images are served. Each covers something, and none of them
	// is covered by one before it.
	Policy []Policy

	// Lifecycle are the local lifecycle rules. See [Config.LocalPolicy].
	Lifecycle []LocalRules

	Log       Log
	Telemetry Telemetry

	// Warnings are about values that are valid, but hardly what was meant.
	Warnings Mistakes
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

// PolicyOf returns the rule that covers a repository of a host, and false if none does that could
// refuse anything.
func (c *Config) PolicyOf(host, repository string) (Policy, bool) {
	host, ok := name.ParseRegistry(host)
	if !ok {
		return Policy{}, false
	}
	for _, p := range c.Policy {
		if p.Match.Match(host, repository) {
			return p, p.HasConditions()
		}
	}
	return Policy{}, false
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
func (c *Cache) Pins(image string) bool { return matchesAny(c.Pin, image) }

// Tags says how long an answer about a tag may be used. No duration is negative.
type Tags struct {
	// TTL is how long a tag is served without asking the upstream again; 0
	// means that the upstream is asked every time. Default 1m.
	TTL time.Duration
	// StaleIfError is how long after its last check a tag is still served while
	// the upstream cannot be asked; 0 means not at all. Default 720h.
	StaleIfError time.Duration
	// StaleIfGone is how long a tag is still served after the upstream has said that
	// it has no such tag; 0 means not at all. A pinned one always is. Default 0.
	StaleIfGone time.Duration
	// NegativeTTL is how long the cache remembers that a tag does not exist; 0
	// means not at all. Default 10s.
	NegativeTTL time.Duration
	// Immutable are patterns of images whose tags never move: the upstream is not
	// asked about them again. None if it is empty.
	Immutable []name.ImagePattern
	// Cooldown says which tags are not followed at once when they move. The first entry that
	// matches counts. None if it is empty.
	Cooldown []Cooldown
}

// Cooldown delays tags that have moved.
type Cooldown struct {
	Match name.ImagePattern
	// For is how long after it was first seen a tag's new digest is followed, more than 0.
	For time.Duration
	// First is "serve", which serves the first digest of a tag at once, or "wait", which
	// refuses the tag until For has passed. Default serve.
	First string
}

// The values of Cooldown.First.
const (
	firstServe = "serve"
	firstWait  = "wait"
)

// FirstWaits reports whether the first digest of a tag waits, too.
func (c Cooldown) FirstWaits() bool { return c.First == firstWait }

// CooldownOf returns the entry for an image, given by its full name
// <host>/<repository>:<tag>, and false if there is none.
func (t *Tags) CooldownOf(image string) (Cooldown, bool) {
	for _, c := range t.Cooldown {
		if c.Match.Match(image) {
			return c, true
		}
	}
	return Cooldown{}, false
}

// IsImmutable reports whether one of Immutable matches an image, given by its full name
// <host>/<repository>:<tag>.
func (t *Tags) IsImmutable(image string) bool { return matchesAny(t.Immutable, image) }

func matchesAny(patterns []name.ImagePattern, image string) bool {
	return slices.ContainsFunc(patterns, func(p name.ImagePattern) bool { return p.Match(image) })
}

// Link says how much of the line to the upstreams they may use, all of them together.
type Link struct {
	// Rate bounds everything, in bytes per second; 0 means that nothing does. Otherwise it
	// is at least 10kB. Default 0.
	Rate int64
	// Background bounds what no client waits for.
	Background LinkBackground
}

// LinkBackground bounds what is fetched from upstreams though no client waits for it.
type LinkBackground struct {
	// Rate bounds it within Link.Rate, in the same way.
	Rate int64
	// Hours are when it is fetched. Default always.
	Hours Hours
}

// Hours are a part of each day, in local time: minutes after midnight, From included. They
// include midnight if From is after To. The zero value is the whole day; otherwise From and To
// differ.
type Hours struct{ From, To int }

// String returns the form of the configuration, such as 22:00-05:00, and "" for the whole day.
func (h Hours) String() string {
	if h == (Hours{}) {
		return ""
	}
	return fmt.Sprintf("%02d:%02d-%02d:%02d", h.From/60, h.From%60, h.To/60, h.To%60)
}

// Import says what may be imported.
type Import struct {
	// Verify are public keys: absolute paths of PEM files, and keys in AWS KMS that begin with
	// awskms://. One of them must have signed a bundle. If there are none, no signature is
	// required.
	Verify []string
}

// What [Keep.Switch] may be.
const (
	keepWhole  = "whole"
	KeepAtOnce = "at_once"
)

// Keep is a group of images that are fetched before anyone asks, followed and pinned.
type Keep struct {
	// Images are full names. Those in File count as well.
	Images []name.Image
	// File is the absolute path of a list with one image a line, which is read again and
	// again; "" for none. It need not exist yet.
	File string
	// Platforms are those of indexes, such as linux/arm64, or "all"; the machine's own if it
	// is empty.
	Platforms []string
	// Every is how often the upstream is asked where a tag points to. It is at least a minute.
	// Default 6h.
	Every time.Duration
	// Switch says when clients get a moved tag's new image: "whole" once that is here, or
	// "at_once". Default whole.
	Switch string
	// Referrers also fetches signatures, attestations and SBOMs. Default false.
	Referrers bool
}

// LocalRules are lifecycle rules for the cached images of some repositories of
// any registry. They are evaluated with what the cache knows about the images.
type LocalRules struct {
	Match  name.Pattern
	Policy lifecycle.Policy
}

// Audit says where each decision about an image is written.
type Audit struct {
	// File is an absolute path, [AuditStdout], or "" for nowhere. Default nowhere.
	File string
	// Required refuses images whose decision cannot be written. Default false.
	Required bool
}

// AuditStdout is the Audit.File of standard output.
const AuditStdout = "-"

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

// Peers says with which other nodes this one shares what it fetches.
type Peers struct {
	// Listen is the host:port on which other nodes are given content. Gossip has the port after it,
	// over TCP and UDP. Port 0 means any free ports. Default 0.0.0.0:5002.
	Listen string
	// Advertise is the address by which other nodes reach this one; "" means that of the route to them.
	Advertise string
	// Join are nodes of the cluster, as host:port of their gossip. A host may be a name with many addresses.
	// Not empty if KeyFile is set.
	Join []string
	// KeyFile is the absolute path of the file with the cluster's keys; "" means that nothing is shared.
	KeyFile string
	// Zone is the node's zone, of at most 64 bytes; "" means that of the instance's metadata, or none. Nodes share within
	// a zone. Default LARDER_ZONE.
	Zone string
	// Span says which nodes ask an upstream once: SpanZone or SpanCluster. Default SpanZone.
	Span string
	// Upload bounds how many bytes a second other nodes are given; 0 means any number. Default 200MB.
	Upload int64
}

// Values of Peers.Span.
const (
	// SpanZone has each zone ask an upstream once. Other zones are asked only where the upstream cannot be had.
	SpanZone = "zone"
	// SpanCluster has one zone ask an upstream, and the others that zone.
	SpanCluster = "cluster"
)

// On reports whether the node shares with others.
func (p Peers) On() bool { return p.KeyFile != "" }

// GossipPort is the port of gossip that belongs to a port of content.
func GossipPort(content uint16) uint16 {
	if content == 0 {
		return 0
	}
	return content + 1
}
