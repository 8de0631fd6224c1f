// Package config is Larder's configuration: its keys and their defaults, strict
// loading from YAML, environment variables and flags, and the rules that a
// configuration must keep before anything is started from it.
//
// Loading is strict so that a misspelt key is found by "larder check" and not
// by an outage: unknown and repeated keys are mistakes, and all mistakes of a
// configuration are reported together, each with its file, line and key.
package config

import (
	"log/slog"
	"time"

	"github.com/dustin/go-humanize"
)

// Config is a complete, valid configuration, as [Load] returns it. It is not
// changed after that, so that any number of goroutines may read it.
type Config struct {
	// Listen is the host:port on which clients are served. An empty host means
	// every address of the machine, port 0 any free port. Default 127.0.0.1:5000.
	Listen string
	// Admin is the host:port of metrics, health and the status page; "" means
	// that there is none. Default 127.0.0.1:5001.
	Admin string

	Cache Cache
	Tags  Tags

	// DefaultUpstream is the host that is meant by a request that names none;
	// "" means that such a request is not served. One of Upstreams serves it.
	// Default docker.io where that is served.
	DefaultUpstream string
	// Upstreams are the registries that may be asked; no other host ever is.
	// There is at least one, and no two have the same Host. Default: every form
	// of ECR host, ECR Public and Docker Hub. See [Config.Match].
	Upstreams []Upstream

	// Lifecycle are lifecycle rules that go by what the cache knows itself, beside
	// those of ECR's repositories. See [Config.LocalRules].
	Lifecycle []LocalRules

	Log       Log
	Telemetry Telemetry
}

// Cache says where the cache is kept, and how large it may become. MaxSize and
// MinFree both hold: the one that leaves less room counts.
type Cache struct {
	// Dir is the absolute path of the cache's folder, which one process owns.
	// Default /var/lib/larder for root, and larder in the user's cache folder
	// (see [os.UserCacheDir]) for others.
	Dir string
	// MaxSize is how much the cache may hold. It is more than 0, and in bytes at
	// least 256MiB. Default 50GiB.
	MaxSize Amount
	// MinFree is how much of the file system the cache leaves free, whoever else
	// uses it; it may be 0. Default 5%.
	MinFree Amount
	// LowWater is how full the cache is once it has made room, as a fraction of
	// MaxSize: above 0, and at most 1. Default 0.9.
	LowWater float64
	// Pin are patterns of images that are never evicted, by their names
	// <host>/<repository>:<tag>; none, if it is empty. See [MatchImage] and
	// [Cache.Pins].
	Pin []string
	// PinAllPlatforms has these pins be of all platforms of an index, which are
	// fetched, and not of those alone that somebody pulls. Default false.
	PinAllPlatforms bool
	// ScrubEvery is how often all that is in the cache is read and checked in the
	// background; 0 means never, and any other is an hour or more. Default 168h, a
	// week.
	ScrubEvery time.Duration
	// ScrubRate is how many bytes of that are read in a second. It is at least
	// 1MiB. Default 20MB.
	ScrubRate Amount
}

// Tags says how long an answer about a tag may be used. No duration is negative.
type Tags struct {
	// TTL is how long a tag is served without asking the upstream again; 0
	// means that it is asked every time. Default 1m.
	TTL time.Duration
	// StaleIfError is how long after its last check a tag is still served while
	// the upstream cannot be asked; 0 means not at all. Default 720h, 30 days.
	StaleIfError time.Duration
	// NegativeTTL is how long it is remembered that a tag does not exist; 0
	// means not at all. Default 10s.
	NegativeTTL time.Duration
}

// Upstream is a registry, or a family of them, that may be asked.
type Upstream struct {
	// Host is the name by which clients call the registry, in lower case: a
	// host[:port], or a pattern for several. In a pattern each "*" stands for one
	// or more characters within one label, which is not the last:
	// *.dkr.ecr.*.amazonaws.com.
	Host string
	// Endpoint is the http or https URL under which the registry's /v2 is, with
	// no slash at its end. Default https://<host>, and for docker.io
	// https://registry-1.docker.io. It is "" where Host is a pattern, since it
	// then depends on the host: [Config.Match] fills it in.
	Endpoint string
	// Timeout is how long a client waits for the upstream at most before it is
	// sent elsewhere. It is more than 0. Default 20s.
	Timeout time.Duration
	// ECR overrides what an ECR host's name tells; nil if it was not given. A host
	// that is not ECR's by its name is treated as ECR if this is there.
	ECR *ECR
	// Auth are the credentials for the registry; the zero value means none. It is
	// never there together with ECR.
	Auth Auth
	// Allow are patterns of the repositories that may be asked for; all, if it is
	// empty. See [Upstream.Allows].
	Allow []string
}

// ECR says what cannot be seen from the name of an ECR host, and as whom it is
// asked.
type ECR struct {
	// APIEndpoint is the http or https URL of the ECR API, which gives out
	// tokens; "" means AWS's own for the region.
	APIEndpoint string
	// Region is the AWS region; "" means the one in the host's name.
	Region string
	// Profile is the profile of AWS's shared configuration files from which
	// credentials are taken; "" means the SDK's whole chain.
	Profile string
	// RoleARN is the role that is assumed with these credentials; "" means none.
	RoleARN string
	// ExternalID and SessionName are what the role's trust policy may ask for, and
	// what CloudTrail shows; "" means none, and a default. Both are "" without
	// RoleARN.
	ExternalID, SessionName string
	// Lifecycle is "hint" where images that the repository's own lifecycle policy
	// has expired are evicted first, "enforce" where they are removed, too, once
	// the registry does not have them any more, and "off" where the policy is not
	// read. Default hint. See [Upstream.HeedsLifecycle].
	Lifecycle string
	// Replicas are the regions, or hosts, to which the registry is replicated, in
	// the order in which they stand in for it. See [Upstream.ReplicaHosts].
	Replicas []string
	// PullThrough are the prefixes of the registry's pull-through cache rules;
	// ROOT stands for all repositories.
	PullThrough []string
	// ImmutableTags is whether tags that the repository's settings do not let be
	// moved are served without asking about them again. Default true. See
	// [Upstream.HeedsImmutableTags].
	ImmutableTags bool
	// KeepAlive is how long after its last pull an image that is served from the
	// cache is pulled again, as far as ECR's lifecycle policies go by that; 0 means
	// never, and any other is a day or more, which is as fine as ECR records pulls.
	// Default 24h. See [Upstream.KeepAlive].
	KeepAlive time.Duration
}

// defaultECR is what holds for an ECR host that has no keys of its own.
func defaultECR() *ECR {
	return &ECR{Lifecycle: lifecycleHint, ImmutableTags: true, KeepAlive: leastKeepAlive}
}

// The values of ECR.Lifecycle.
const (
	lifecycleHint    = "hint"
	lifecycleEnforce = "enforce"
	lifecycleOff     = "off"
)

// HeedsLifecycle tells whether eviction goes by the lifecycle policies of the
// upstream's repositories, if it is ECR.
func (u *Upstream) HeedsLifecycle() bool { return u.ECR == nil || u.ECR.Lifecycle != lifecycleOff }

// EnforcesLifecycle tells whether expired images that the upstream does not have
// any more are removed.
func (u *Upstream) EnforcesLifecycle() bool {
	return u.ECR != nil && u.ECR.Lifecycle == lifecycleEnforce
}

// HeedsImmutableTags tells whether the upstream is asked which tags cannot move,
// if it is ECR.
func (u *Upstream) HeedsImmutableTags() bool { return u.ecr().ImmutableTags }

// KeepAlive is how long after its last pull an image that is in use is pulled
// again, if the upstream is ECR; 0 means never.
func (u *Upstream) KeepAlive() time.Duration { return u.ecr().KeepAlive }

func (u *Upstream) ecr() *ECR {
	if u.ECR == nil {
		return defaultECR()
	}
	return u.ECR
}

// Auth is a user name and where its password is, of which both are set or
// neither; or where both are to be found.
type Auth struct {
	Username string
	// PasswordFile is the absolute path of a file that holds the password. It need
	// not exist yet: it is for the one who uses it to read.
	PasswordFile string
	// DockerConfig is the absolute path of a file of the form of Docker's
	// config.json, to which the same applies. It is never there together with
	// Username.
	DockerConfig string
}

// Log says what is logged, and how.
type Log struct {
	Level slog.Level
	// Format is "text" or "json". Default text.
	Format string
}

// Telemetry says what metrics and traces there are beyond those at Admin.
type Telemetry struct {
	// OTLPEndpoint is the http or https URL of an OpenTelemetry collector, below
	// which /v1/metrics and /v1/traces are; "" means that nothing is sent, and
	// that there are no traces.
	OTLPEndpoint string
	// SampleRatio is the part of the requests that are traced, among those whose
	// client did not decide that: from 0 to 1. Default 0.05.
	SampleRatio float64
	// RepositoryLabel adds the repository to the metrics of requests.
	RepositoryLabel bool
}

const (
	// dockerHub is the name by which clients call Docker Hub.
	dockerHub = "docker.io"
	// dockerHubEndpoint is where Docker Hub's /v2 is: its name and its registry
	// have different hosts.
	dockerHubEndpoint = "https://registry-1.docker.io"

	// defaultTimeout keeps the longest wait well under the 30 s that containerd
	// (from 2.3 on) waits for headers, so that it hears why before it gives up.
	defaultTimeout = 20 * time.Second

	// leastKeepAlive is ECR's granularity: it refreshes the time of the last pull
	// once that is a day old (API reference, ImageDetail).
	leastKeepAlive = 24 * time.Hour

	// leastMaxSize is the smallest size of a cache that can be of use, in bytes:
	// the index and one large layer fit in it.
	leastMaxSize = 256 * humanize.MiByte

	// leastScrubEvery is how long a cache rests before each pass.
	leastScrubEvery = time.Hour
	// leastScrubRate reads a cache of 50 GiB within a day.
	leastScrubRate = humanize.MiByte

	// defaultSampleRatio shows what pulls spend their time on, at a cost that nobody
	// notices in a warm cache.
	defaultSampleRatio = 0.05
)

// defaults returns the configuration that holds without a file, apart from
// what depends on other keys: see loader.complete.
func defaults() *Config {
	c := &Config{
		Listen: "127.0.0.1:5000",
		Admin:  "127.0.0.1:5001",
		Cache: Cache{
			MaxSize:  Amount{Bytes: 50 * humanize.GiByte},
			MinFree:  Amount{Percent: 5},
			LowWater: 0.9,

			ScrubEvery: 7 * 24 * time.Hour,
			ScrubRate:  Amount{Bytes: 20 * humanize.MByte},
		},
		Tags: Tags{
			TTL:          time.Minute,
			StaleIfError: 30 * 24 * time.Hour,
			NegativeTTL:  10 * time.Second,
		},
		Log:       Log{Level: slog.LevelInfo, Format: "text"},
		Telemetry: Telemetry{SampleRatio: defaultSampleRatio},
	}
	for _, form := range ecrForms() {
		c.Upstreams = append(c.Upstreams, Upstream{Host: form.pattern(), Timeout: defaultTimeout})
	}
	for _, host := range append(ecrPublicHosts(), dockerHub) {
		c.Upstreams = append(c.Upstreams, Upstream{Host: host, Timeout: defaultTimeout})
	}
	return c
}

// defaultEndpoint returns where the /v2 of a host is unless it is configured.
func defaultEndpoint(host string) string {
	if host == dockerHub {
		return dockerHubEndpoint
	}
	return "https://" + host
}
