package daemon

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"net/http"
	"slices"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/cache"
	"github.com/larder-registry/larder/cmd/internal/daemon/conns"
	"github.com/larder-registry/larder/config"
	"github.com/larder-registry/larder/proxy"
	"github.com/larder-registry/larder/upstream"
	"github.com/larder-registry/larder/upstream/peer"
)

// sources returns how clients' requests find their upstream: where this node shares what it fetches, the
// other nodes are asked first.
func (d *Daemon) sources() func(host, repository string) (proxy.Source, error) {
	own := d.withBucket(sources(d.cfg, d.client), 0)
	if d.sharing == nil {
		return own
	}
	return d.shared(own, 0)
}

// shared returns the upstreams that are shared, for questions that have come through a number of nodes. Those
// of which clients' own rights decide are not shared: this node asks them itself, and gives nothing of them to
// others.
func (d *Daemon) shared(own func(host, repository string) (proxy.Source, error), hops int) func(host, repository string) (proxy.Source, error) {
	return func(host, repository string) (proxy.Source, error) {
		source, err := own(host, repository)
		switch {
		case err != nil:
			return proxy.Source{}, err
		case source.As != nil && hops > 0:
			return proxy.Source{}, proxy.ErrNotAllowed
		case source.As != nil:
			return source, nil
		}
		open := source.OpenBlob
		both := d.sharing.Source(peer.Settings{
			Host:     host,
			Registry: source.Upstream,
			OpenBlob: func(ctx context.Context, repository string, dgst digest.Digest, part upstream.Range) (upstream.Content, error) {
				content, err := open(ctx, repository, dgst, cache.Range(part))
				return upstream.Content(content), err
			},
			Offline: func() bool { return d.presence.isOffline(host) },
			Aged:    cache.Aged,
			Fresh:   d.cfg.Tags.TTL,
			Hops:    hops,
		})
		source.Upstream = both
		source.OpenBlob = func(ctx context.Context, repository string, dgst digest.Digest, part cache.Range) (cache.Content, error) {
			content, err := both.OpenBlob(ctx, repository, dgst, upstream.Range(part))
			return cache.Content(content), err
		}
		return source, nil
	}
}

// peersAtAGlance returns what the status page shows of other nodes; nil if this one shares nothing.
func (d *Daemon) peersAtAGlance() func() any {
	if d.sharing == nil {
		return nil
	}
	return func() any { return d.sharing.Status().Glance() }
}

// rights returns a hash of what this node may read of its upstreams. It is never 0. Nodes whose hashes differ hardly have
// the same rights, and those with the same hash may still have different credentials.
func rights(cfg *config.Config) uint64 {
	hash := sha256.New()
	enc := json.NewEncoder(hash)
	for _, u := range cfg.Upstreams {
		allow := make([]string, 0, len(u.Allow))
		for _, pattern := range u.Allow {
			allow = append(allow, string(pattern))
		}
		slices.Sort(allow)
		role := ""
		if u.ECR != nil {
			role = u.ECR.RoleARN
		}
		_ = enc.Encode([]any{u.Host, role, allow, u.Access}) // a hash takes all of it
	}
	return max(binary.BigEndian.Uint64(hash.Sum(nil)), 1)
}

// peerServer answers other nodes, as clients are answered: from the cache, or the upstreams that this node's
// configuration allows.
func (d *Daemon) peerServer(descriptors uint64) (*server, error) {
	answers := func(hops int) http.Handler {
		return proxy.New(proxy.Options{
			Upstreams: d.shared(d.withBucket(sources(d.cfg, d.client), hops), hops),
			Store:     d.store,
			ForPeers:  true,
			Log:       d.log.With("for", "peer"),
			Tracer:    d.telemetry.tracer,
		})
	}
	limited, err := conns.Limit(d.sharing.Listener(), "peers", conns.ForClients(descriptors, true), d.telemetry.meter, d.log)
	if err != nil {
		return nil, err
	}
	server := newTCPServer(limited, d.sharing.Handler(answers(1), answers(2), d.store.Has), d.opts.Drain, d.log)
	server.listener = d.sharing.Secure(limited)
	server.welcomes = true // its successors take what it has begun
	return server, nil
}
