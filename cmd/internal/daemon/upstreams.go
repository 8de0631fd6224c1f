package daemon

import (
	"context"
	"log/slog"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/cache"
	"github.com/larder-registry/larder/config"
	"github.com/larder-registry/larder/proxy"
	"github.com/larder-registry/larder/upstream"
	"github.com/larder-registry/larder/upstream/ecr"
)

// Lookup returns how an upstream client finds what is configured for a host. It
// returns false for a host that the configuration does not allow.
func Lookup(cfg *config.Config) func(host string) (upstream.Config, bool) {
	return func(host string) (upstream.Config, bool) {
		entry, ok := cfg.Match(host)
		if !ok {
			return upstream.Config{}, false
		}
		c := upstream.Config{
			Host:         host,
			Name:         string(entry.Host),
			Endpoint:     entry.Endpoint,
			Timeout:      entry.Timeout,
			Username:     entry.Auth.Username,
			PasswordFile: entry.Auth.PasswordFile,
			DockerConfig: entry.Auth.DockerConfig,
			Realms:       entry.Auth.Realms,
		}
		if entry.ECR != nil {
			c.ECR = upstream.ECRConfig{
				APIEndpoint: entry.ECR.APIEndpoint,
				Region:      entry.ECR.Region,
				Identity: ecr.Identity{
					Profile:     entry.ECR.Profile,
					RoleARN:     entry.ECR.RoleARN,
					ExternalID:  entry.ECR.ExternalID,
					SessionName: entry.ECR.SessionName,
				},
				Replicas:    entry.ReplicaHosts(host),
				PullThrough: entry.ECR.PullThrough,
			}
		}
		return c, true
	}
}

// sources returns how the proxy finds the upstream for a request. Hosts and
// repositories that the configuration does not allow have none.
func sources(cfg *config.Config, client *upstream.Client, log *slog.Logger) func(host, repository string) (proxy.Source, bool) {
	return func(host, repository string) (proxy.Source, bool) {
		entry, ok := cfg.Match(host)
		if !ok || !entry.Allows(repository) {
			return proxy.Source{}, false
		}
		registry, err := client.Registry(host)
		if err != nil {
			log.Error("an upstream cannot be used", "upstream", host, "error", err)
			return proxy.Source{}, false
		}
		return proxy.Source{
			Upstream:      registry,
			OpenBlob:      openBlob(registry),
			WithAdmission: upstream.WithAdmission,
			Timeout:       entry.Timeout,
			Name:          string(entry.Host),
		}, true
	}
}

// openBlob opens blobs of a registry for the cache.
func openBlob(r *upstream.Registry) proxy.OpenBlob {
	return func(ctx context.Context, repository string, dgst digest.Digest, part cache.Range) (cache.Content, error) {
		content, err := r.OpenBlob(ctx, repository, dgst, upstream.Range(part))
		return cache.Content(content), err
	}
}
