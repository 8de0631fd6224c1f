package main

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/larder-registry/larder/cache"
	"github.com/larder-registry/larder/config"
	"github.com/larder-registry/larder/proxy"
	"github.com/larder-registry/larder/upstream"
)

// larder is what "larder serve" runs, in this process.
type larder struct {
	cfg  *config.Config
	log  *slog.Logger
	addr string // where it listens; after a restart too

	server *http.Server // nil while it does not run
	ended  chan error   // how the server ended
	store  *cache.Store
	client *upstream.Client
}

// drain is how long the answers under way may go on when Larder is stopped.
const drain = 5 * time.Second

// startLarder returns a larder that serves.
func startLarder(ctx context.Context, cfg *config.Config, log *slog.Logger) (*larder, error) {
	l := &larder{cfg: cfg, log: log, addr: cfg.Listen}
	return l, l.start(ctx)
}

// start serves until stop is called; ctx is for the beginning only.
func (l *larder) start(ctx context.Context) error {
	store, err := cache.Open(l.cfg.Cache.Dir, cache.Options{
		Tags: cache.Freshness{
			TTL:          l.cfg.Tags.TTL,
			StaleIfError: l.cfg.Tags.StaleIfError,
			Negative:     l.cfg.Tags.NegativeTTL,
		},
		Log: l.log,
	})
	if err != nil {
		return err
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", l.addr)
	if err != nil {
		return errors.Join(err, store.Close())
	}
	l.addr = listener.Addr().String()
	l.store = store
	l.client = upstream.NewClient(upstream.Options{Lookup: l.lookup, Log: l.log})
	l.server = &http.Server{
		Handler: proxy.New(proxy.Options{
			Upstreams: l.source,
			Default:   l.cfg.DefaultUpstream,
			Store:     store,
			Log:       l.log,
		}),
		ReadHeaderTimeout: drain,
		ErrorLog:          slog.NewLogLogger(l.log.Handler(), slog.LevelDebug),
	}
	l.ended = make(chan error, 1)
	go func() { l.ended <- l.server.Serve(listener) }()
	return nil
}

// lookup translates the configuration's entry for a host.
func (l *larder) lookup(host string) (upstream.Config, bool) {
	entry, ok := l.cfg.Match(host)
	if !ok {
		return upstream.Config{}, false
	}
	return upstream.Config{
		Host:     host,
		Endpoint: entry.Endpoint,
		Timeout:  entry.Timeout,
		ECR:      upstream.ECRConfig{APIEndpoint: entry.ECR.APIEndpoint},
	}, true
}

// source finds the upstream for a request.
func (l *larder) source(host, _ string) (proxy.Source, bool) {
	entry, ok := l.cfg.Match(host)
	if !ok {
		return proxy.Source{}, false
	}
	registry, err := l.client.Registry(host)
	return proxy.Source{Upstream: registry, Timeout: entry.Timeout}, err == nil
}

// stop ends it as SIGTERM does, if it runs. start may follow.
func (l *larder) stop() error {
	if l.server == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), drain)
	defer cancel()
	err := l.server.Shutdown(ctx)
	if err != nil {
		err = errors.Join(err, l.server.Close())
	}
	if ended := <-l.ended; !errors.Is(ended, http.ErrServerClosed) {
		err = errors.Join(err, ended)
	}
	l.server = nil
	return errors.Join(err, l.store.Close(), l.client.Close())
}
