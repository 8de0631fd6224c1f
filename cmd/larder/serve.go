package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	otelprometheus "go.opentelemetry.io/otel/exporters/prometheus"
	"go.opentelemetry.io/otel/metric"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"golang.org/x/sync/errgroup"

	"github.com/larder-registry/larder/cache"
	"github.com/larder-registry/larder/config"
	"github.com/larder-registry/larder/proxy"
	"github.com/larder-registry/larder/upstream"
)

// serveCommand is "larder serve".
type serveCommand struct {
	settings
}

// drain is how long running bodies may go on after SIGTERM. Kubernetes kills
// after 30 s unless told otherwise.
const drain = 25 * time.Second

// Run serves until the context ends, then drains.
func (c *serveCommand) Run(p *invocation) error {
	cfg, err := c.load(p.env)
	if err != nil {
		return err
	}
	log := newLogger(cfg, p.stderr)
	meter, metrics, err := newMeter()
	if err != nil {
		return err
	}
	disk, err := cache.DiskSize(cfg.Cache.Dir)
	if err != nil {
		return err
	}
	store, err := cache.Open(cfg.Cache.Dir, cache.Options{
		MaxSize:  cfg.Cache.MaxSize.Of(disk),
		MinFree:  cfg.Cache.MinFree.Of(disk),
		LowWater: cfg.Cache.LowWater,
		Tags: cache.Freshness{
			TTL:          cfg.Tags.TTL,
			StaleIfError: cfg.Tags.StaleIfError,
			Negative:     cfg.Tags.NegativeTTL,
		},
		Log:   log,
		Meter: meter,
	})
	if err != nil {
		return err
	}
	client := upstream.NewClient(upstream.Options{Lookup: lookup(cfg), Log: log})
	handler := proxy.New(proxy.Options{
		Upstreams: sources(cfg, client, log),
		Default:   cfg.DefaultUpstream,
		Store:     store,
		Log:       log,
	})
	err = listenAndServe(p.ctx, log, cfg, handler, proxy.Admin(metrics, func() error { return p.ctx.Err() }))
	return errors.Join(err, store.Close(), client.Close())
}

// listenAndServe opens both listeners before it serves on either, and closes
// them when ctx ends or one fails.
func listenAndServe(ctx context.Context, log *slog.Logger, cfg *config.Config, clients, admin http.Handler) error {
	group, ctx := errgroup.WithContext(ctx)
	servers := []struct {
		addr, what string
		handler    http.Handler
	}{
		{cfg.Listen, "clients", clients},
		{cfg.Admin, "admin", admin},
	}
	var listeners []net.Listener
	for _, s := range servers {
		if s.addr == "" {
			listeners = append(listeners, nil)
			continue
		}
		l, err := new(net.ListenConfig).Listen(ctx, "tcp", s.addr)
		if err != nil {
			err = fmt.Errorf("listen for %s: %w", s.what, err)
			for _, open := range listeners {
				err = errors.Join(err, open.Close())
			}
			return err
		}
		listeners = append(listeners, l)
	}
	if cfg.Exposed() {
		log.Warn("listening beyond loopback: whoever reaches this address can pull every image that the cache holds or that its credentials may fetch",
			"listen", cfg.Listen)
	}
	for i, s := range servers {
		if l := listeners[i]; l != nil {
			serve(ctx, group, log, l, s.handler)
		}
	}
	log.Info("ready", "version", currentVersion(), "listen", listeners[0].Addr(), "admin", cfg.Admin,
		"cache", cfg.Cache.Dir, "upstreams", len(cfg.Upstreams))
	return group.Wait()
}

// serve runs one server in the group, and drains it when ctx ends.
func serve(ctx context.Context, group *errgroup.Group, log *slog.Logger, l net.Listener, h http.Handler) {
	server := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       3 * time.Minute,
		MaxHeaderBytes:    128 << 10, // a thousand ranges are some 30 kB
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	group.Go(func() error {
		if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serve on %s: %w", l.Addr(), err)
		}
		return nil
	})
	group.Go(func() error {
		<-ctx.Done()
		log.Info("draining", "address", l.Addr(), "at_most", drain)
		bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), drain)
		defer cancel()
		if err := server.Shutdown(bounded); err != nil {
			log.Warn("bodies were cut at the end of the drain", "address", l.Addr())
			return server.Close()
		}
		return nil
	})
}

func newLogger(cfg *config.Config, w io.Writer) *slog.Logger {
	opts := &slog.HandlerOptions{Level: cfg.Log.Level}
	if cfg.Log.Format == "json" {
		return slog.New(slog.NewJSONHandler(w, opts))
	}
	return slog.New(slog.NewTextHandler(w, opts))
}

// newMeter returns where instruments are made, and the page that shows them.
func newMeter() (metric.MeterProvider, http.Handler, error) {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	exporter, err := otelprometheus.New(otelprometheus.WithRegisterer(registry), otelprometheus.WithoutScopeInfo())
	if err != nil {
		return nil, nil, fmt.Errorf("set up metrics: %w", err)
	}
	provider := sdkmetric.NewMeterProvider(sdkmetric.WithReader(exporter))
	return provider, promhttp.HandlerFor(registry, promhttp.HandlerOpts{}), nil
}
