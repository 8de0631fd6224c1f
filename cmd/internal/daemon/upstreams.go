package daemon

import (
	"context"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/cache"
	"github.com/larder-registry/larder/config"
	"github.com/larder-registry/larder/proxy"
	"github.com/larder-registry/larder/proxy/access"
	"github.com/larder-registry/larder/upstream"
	"github.com/larder-registry/larder/upstream/auth"
	"github.com/larder-registry/larder/upstream/ecr"
	"github.com/larder-registry/larder/upstream/link"
	"github.com/larder-registry/larder/upstream/pace"
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
func sources(cfg *config.Config, client *upstream.Client) func(host, repository string) (proxy.Source, error) {
	return func(host, repository string) (proxy.Source, error) {
		entry, ok := cfg.Match(host)
		switch {
		case !ok:
			return proxy.Source{}, proxy.ErrNotConfigured
		case !entry.Allows(repository):
			return proxy.Source{}, proxy.ErrNotAllowed
		}
		registry, err := client.Registry(host)
		if err != nil {
			return proxy.Source{}, err
		}
		source := proxy.Source{
			Upstream:      registry,
			OpenBlob:      openBlob(registry),
			WithAdmission: upstream.WithAdmission,
			Background:    pace.BackgroundUntil,
			For:           link.For,
			Timeout:       entry.Timeout,
			Name:          string(entry.Host),
		}
		if entry.ByClient() {
			source.As, source.Login, source.HasLogin = asClient, registry.Login, registry.HasLogin
		}
		return source, nil
	}
}

// asClient marks a context with the login of a client.
func asClient(ctx context.Context, c access.Credential, since time.Time) context.Context {
	user, password, identityToken := c.Login()
	return auth.As(ctx, auth.Login{Username: user, Password: password, Refresh: identityToken}, since)
}

// openBlob opens blobs of a registry for the cache.
func openBlob(r *upstream.Registry) proxy.OpenBlob {
	return func(ctx context.Context, repository string, dgst digest.Digest, part cache.Range) (cache.Content, error) {
		content, err := r.OpenBlob(ctx, repository, dgst, upstream.Range(part))
		return cache.Content(content), err
	}
}
