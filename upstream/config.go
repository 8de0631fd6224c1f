package upstream

import (
	"cmp"
	"fmt"
	"net/url"
	"time"

	"github.com/larder-registry/larder/upstream/ecr"
)

// Config describes one upstream.
type Config struct {
	// Host is the registry's name, as clients give it.
	Host string
	// Name is the upstream's name in metrics. There must be few: it may be the
	// pattern that allows the host. Empty means Host.
	Name string
	// Endpoint is the URL below which /v2 is. Empty means https://<Host>.
	Endpoint string
	// Timeout bounds each answer up to its headers, and manifests and lists in
	// whole. 0 means 20 s.
	Timeout time.Duration
	// Username and PasswordFile are credentials for basic and bearer
	// authentication. The file is read at each use, so that it may be replaced.
	Username, PasswordFile string
	// DockerConfig is a file of the form of Docker's config.json. The credentials for
	// the endpoint's host are looked up there instead; entries for a part of a
	// registry are not used. It is read as PasswordFile is.
	DockerConfig string
	// Realms are the host[:port] of token services that get these credentials, beside
	// those that the registry may name by itself.
	Realms []string
	// ECR has the settings of an ECR registry.
	ECR ECRConfig
}

// ECRConfig has the settings of an ECR registry that its host does not tell.
type ECRConfig struct {
	// APIEndpoint is the URL of the ECR API. Empty means AWS's own.
	APIEndpoint string
	// Region is that of the registry. Empty means the one in its host's name.
	Region string
	// Identity is the AWS identity of tokens.
	Identity ecr.Identity
	// Replicas are the hosts of registries in other regions to which this one's
	// repositories are replicated, in the order in which they are asked. Their own
	// settings are those of Options.Lookup, if any. They have the same Identity unless
	// they have one of their own.
	Replicas []string
	// PullThrough are the prefixes of the registry's pull-through cache rules. ROOT
	// means all repositories.
	PullThrough []string
}

// defaultTimeout is the default of Config.Timeout.
const defaultTimeout = 20 * time.Second

// complete returns the configuration with its defaults, and the endpoint.
func (c Config) complete() (Config, *url.URL, error) {
	c.Name = cmp.Or(c.Name, c.Host)
	c.Timeout = cmp.Or(c.Timeout, defaultTimeout)
	endpoint, err := url.Parse(cmp.Or(c.Endpoint, "https://"+c.Host))
	if err != nil {
		return Config{}, nil, fmt.Errorf("upstream %s: endpoint: %w", c.Host, err)
	}
	return c, endpoint, nil
}
