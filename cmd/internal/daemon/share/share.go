// Package share has this node share what it fetches with the other nodes of its zone: it reads the cluster's
// keys, joins the cluster, answers its nodes, and makes upstreams ask them first.
package share

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"time"

	"github.com/opencontainers/go-digest"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"

	"github.com/larder-registry/larder/config"
	"github.com/larder-registry/larder/proxy/livefile"
	"github.com/larder-registry/larder/upstream/peer"
	"github.com/larder-registry/larder/upstream/peer/members"
	"github.com/larder-registry/larder/upstream/peer/ring"
)

// Options are what [Open] needs beside the configuration.
type Options struct {
	// Version is that of the program, as others are told it.
	Version string
	Meter   metric.MeterProvider
	Tracer  trace.TracerProvider
	Log     *slog.Logger
	// Rights is a hash of what this node may read, as others are told it.
	Rights uint64
	// Patience is that of [peer.Options], for tests.
	Patience time.Duration
}

// Sharing is this node's part in the cluster. It is safe for concurrent use.
type Sharing struct {
	*peer.Peers
	log      *slog.Logger
	upload   int64
	join     []string
	ring     *ring.Ring
	members  *members.Members
	listener net.Listener
	identity ring.Identity
	keys     *livefile.Follower[string]
}

// Open joins the cluster that the configuration names, and listens for its nodes; they are answered when the
// caller serves the listener. It does not wait for others. Without a key that can be read the node shares
// nothing: then the log says so, and the result is nil.
func Open(ctx context.Context, cfg config.Peers, opts Options) (*Sharing, error) {
	if !cfg.On() {
		return nil, nil
	}
	keys, err := ring.ReadKeys(cfg.KeyFile)
	if err != nil {
		opts.Log.Error("this node shares nothing with others, as it has no key of the cluster; it needs a restart when it has one", "error", err)
		return nil, nil
	}
	s := &Sharing{log: opts.Log, upload: cfg.Upload, join: cfg.Join, ring: ring.New(keys...)}
	if err := s.open(ctx, cfg, opts); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	s.keys = livefile.New(cfg.KeyFile, s.loadKeys, func(err error) {
		s.log.Error("the cluster's keys cannot be read again; those before stay in use", "error", err)
	})
	return s, nil
}

func (s *Sharing) open(ctx context.Context, cfg config.Peers, opts Options) (err error) {
	if s.identity, err = ring.NewIdentity(); err != nil {
		return err
	}
	if s.listener, err = new(net.ListenConfig).Listen(ctx, "tcp", cfg.Listen); err != nil {
		return fmt.Errorf("listen for peers: %w: choose another address with peers.listen", err)
	}
	at := s.listener.Addr().(*net.TCPAddr).AddrPort()
	bind := netip.AddrPortFrom(at.Addr().Unmap(), 0)
	if _, port, _ := net.SplitHostPort(cfg.Listen); port != "0" {
		bind = netip.AddrPortFrom(bind.Addr(), config.GossipPort(at.Port()))
	}
	advertised, err := advertise(ctx, cfg, at.Addr().Unmap())
	if err != nil {
		return err
	}
	s.members, err = members.Open(members.Options{
		Ring:    s.ring,
		Bind:    bind,
		Content: netip.AddrPortFrom(advertised, at.Port()),
		Join:    cfg.Join,
		Zone:    cfg.Zone,
		Version: opts.Version,
		Rights:  opts.Rights,
		Log:     s.log,

		FindZone: func(ctx context.Context) string { return zoneOfInstance(ctx, s.log) },
	})
	if err != nil {
		return err
	}
	s.Peers, err = peer.New(peer.Options{
		Cluster:  s.members,
		Dial:     (&ring.Dialer{Ring: s.ring}).Dial,
		Span:     cfg.Span == config.SpanCluster,
		Patience: opts.Patience,
		Log:      s.log,
		Meter:    opts.Meter,
		Tracer:   opts.Tracer,
	})
	return err
}

// Secure returns a listener of the nodes that connect to inner and prove the cluster's key. inner is that of
// Listener, bounded.
func (s *Sharing) Secure(inner net.Listener) net.Listener {
	return ring.Listen(inner, s.ring, s.identity, s.log)
}

// Listener is where other nodes connect to. What is sent is bounded.
func (s *Sharing) Listener() net.Listener { return peer.LimitUpload(s.listener, s.upload) }

// Handler answers other nodes.
func (s *Sharing) Handler(asked, passed http.Handler, has func(digest.Digest) bool) http.Handler {
	return s.Peers.Handler(peer.Answers{Asked: asked, Passed: passed, Has: has})
}

// Use reads another key file from now on, or the same one again.
func (s *Sharing) Use(keyFile string) { s.keys.Use(keyFile) }

// loadKeys puts the keys of a file to use.
func (s *Sharing) loadKeys(file string) error {
	keys, err := ring.ReadKeys(file)
	if err != nil {
		return err
	}
	if !s.ring.Change(keys) {
		return nil
	}
	s.log.Info("the cluster's keys have changed", "keys", len(keys))
	return s.members.Rekey()
}

// Run follows the key file until ctx ends. Then the other nodes are told that this one is about to stop.
func (s *Sharing) Run(ctx context.Context) {
	s.keys.Run(ctx)
	s.members.Drain()
}

// GossipAddr is where this node takes part in gossip.
func (s *Sharing) GossipAddr() netip.AddrPort { return s.members.GossipAddr() }

// Close leaves the cluster. No request may run any more.
func (s *Sharing) Close() error {
	if s == nil {
		return nil
	}
	var errs []error
	if s.members != nil {
		errs = append(errs, s.members.Close())
	}
	if s.Peers != nil {
		errs = append(errs, s.Peers.Close())
	}
	if s.listener != nil {
		if err := s.listener.Close(); !errors.Is(err, net.ErrClosed) { // its server has closed it
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
