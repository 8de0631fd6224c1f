package config

import (
	"slices"
	"time"

	"github.com/larder-registry/larder/upstream/name"
)

// Upstream is a registry that may be asked, or several registries with the same
// settings.
type Upstream struct {
	// Host is the host by which clients call the registry, or a pattern for
	// several.
	Host name.HostPattern
	// Endpoint is the http or https URL under which the registry's /v2 is, without
	// a slash at its end. Default https://<host>, and for docker.io
	// https://registry-1.docker.io. It is "" if Host is a pattern, since it then
	// depends on the host: [Config.Match] sets it.
	Endpoint string
	// Timeout is how long a client waits for the upstream at most before it gets
	// an error. It is more than 0. Default 20s.
	Timeout time.Duration
	// Offline says that the registry is not asked: what is cached is served, and
	// everything else does not exist. A command may change it while the daemon runs.
	Offline bool
	// Access is AccessNode, by which every client gets what the upstream's credentials may pull,
	// or AccessClient, by which each client gets what the upstream lets its own credential pull.
	// Default AccessNode.
	Access string
	// ECR are the settings for ECR; nil if there are none. A host that is not an
	// ECR host by its name is treated as one if ECR is set.
	ECR *ECR
	// Auth are the credentials for the registry; the zero value means none. It is
	// never set together with ECR.
	Auth Auth
	// Allow are patterns of the repositories that may be asked for; all if it is
	// empty.
	Allow []name.RepositoryPattern
}

// Auth is a user name and the file of its password, or a file with both, and where
// they may be sent.
type Auth struct {
	// Username is set if and only if PasswordFile is.
	Username string
	// PasswordFile is the absolute path of a file with the password. The file need
	// not exist yet.
	PasswordFile string
	// DockerConfig is the absolute path of a file in the form of Docker's
	// config.json. It need not exist yet. It is never set together with Username.
	DockerConfig string
	// Realms are the host[:port] of token services that get the credentials, beside
	// those that the registry may name by itself.
	Realms []string
}

// hasLogin reports whether credentials are set.
func (a Auth) hasLogin() bool {
	return a.Username != "" || a.PasswordFile != "" || a.DockerConfig != ""
}

// ECR says what the name of an ECR host does not tell, and with which identity
// ECR is asked.
type ECR struct {
	// APIEndpoint is the http or https URL of the ECR API, which issues tokens; ""
	// means the AWS endpoint of the region.
	APIEndpoint string
	// Region is the AWS region; "" means the region in the host's name.
	Region string
	// Profile is the profile of AWS's shared configuration files that has the
	// credentials; "" means the SDK's default chain.
	Profile string
	// RoleARN is the role that is assumed with these credentials; "" means none.
	RoleARN string
	// ExternalID is what the role's trust policy may require; SessionName appears
	// in CloudTrail. "" means none, and a default. Both are "" without RoleARN.
	ExternalID, SessionName string
	// Lifecycle says how the repositories' own lifecycle policies are used: "hint"
	// evicts the images first that a policy has expired; "enforce" also removes
	// them once the registry does not have them any more; "off" does not read the
	// policies. Default hint.
	Lifecycle string
	// Replicas are the regions, or hosts, to which the registry is replicated, in
	// the order in which they are tried. See [Upstream.ReplicaHosts].
	Replicas []string
	// PullThrough are the prefixes of the registry's pull-through cache rules;
	// ROOT means all repositories.
	PullThrough []string
	// ImmutableTags says whether tags that a repository's settings make immutable
	// are served without checking them again. Default true.
	ImmutableTags bool
	// KeepAlive is how long after its last recorded pull an image that the cache
	// serves is pulled again for ECR's lifecycle policies; 0 means never. Otherwise
	// it is at least a day. Default 24h.
	KeepAlive time.Duration
}

// The values of ECR.Lifecycle.
const (
	lifecycleHint    = "hint"
	lifecycleEnforce = "enforce"
	lifecycleOff     = "off"
)

// minKeepAlive is ECR's granularity: it updates the time of the last pull once
// that is a day old (API reference, ImageDetail).
const minKeepAlive = 24 * time.Hour

// defaultECR returns the settings of an ECR host without keys of its own.
func defaultECR() *ECR {
	return &ECR{Lifecycle: lifecycleHint, ImmutableTags: true, KeepAlive: minKeepAlive}
}

// defaultEndpoint returns the URL under which the /v2 of a host is.
func defaultEndpoint(host string) string {
	if host == name.DockerHub {
		host = name.DockerHubRegistry
	}
	return "https://" + host
}

// Allows reports whether a repository may be asked for, by its name at the
// upstream (library/alpine at docker.io).
func (u *Upstream) Allows(repository string) bool {
	return len(u.Allow) == 0 ||
		slices.ContainsFunc(u.Allow, func(p name.RepositoryPattern) bool { return p.Match(repository) })
}

// ReplicaHosts returns the hosts of the replicas of a host that the upstream
// serves. The replica in a region is the registry of the same account there, with
// the same form of name. A replica that would be host itself is left out: a
// pattern may match the replica too.
func (u *Upstream) ReplicaHosts(host string) []string {
	if u.ECR == nil {
		return nil
	}
	var hosts []string
	for _, replica := range u.ECR.Replicas {
		if !name.IsRegion(replica) {
			hosts = append(hosts, replica)
		} else if there, ok := name.InRegion(host, replica); ok && there != host {
			hosts = append(hosts, there)
		}
	}
	return hosts
}

// HeedsLifecycle reports whether eviction uses the lifecycle policies of the
// upstream's repositories, if it is ECR.
func (u *Upstream) HeedsLifecycle() bool { return u.ecr().Lifecycle != lifecycleOff }

// EnforcesLifecycle reports whether expired images are removed once the upstream
// does not have them any more.
func (u *Upstream) EnforcesLifecycle() bool { return u.ecr().Lifecycle == lifecycleEnforce }

// HeedsImmutableTags reports whether the upstream is asked which tags are
// immutable, if it is ECR.
func (u *Upstream) HeedsImmutableTags() bool { return u.ecr().ImmutableTags }

// KeepAlive is ECR.KeepAlive, with its default if ECR is nil.
func (u *Upstream) KeepAlive() time.Duration { return u.ecr().KeepAlive }

func (u *Upstream) ecr() *ECR {
	if u.ECR == nil {
		return defaultECR()
	}
	return u.ECR
}
