package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/larder-registry/larder/cache"
	"github.com/larder-registry/larder/cache/disk"
	"github.com/larder-registry/larder/cmd/internal/daemon/upkeep"
	"github.com/larder-registry/larder/config"
	"github.com/larder-registry/larder/proxy"
	"github.com/larder-registry/larder/proxy/admin"
	"github.com/larder-registry/larder/upstream"
)

// serveCommand is "larder serve".
type serveCommand struct {
	settings
}

// Run serves until the context ends, then drains.
func (c *serveCommand) Run(p *invocation) error {
	cfg, err := c.load(p.env)
	if err != nil {
		return err
	}
	useProcessors(p.env)
	log := newLogger(cfg, p.stderr)
	tel, err := newTelemetry(p.ctx, cfg.Telemetry, p.env, log)
	if err != nil {
		return err
	}
	defer tel.end(log)
	client := upstream.NewClient(upstream.Options{Lookup: lookup(cfg), Log: log, Meter: tel.meter, Tracer: tel.tracer})
	immutable := newImmutableTags(cfg, client, log)
	opts, err := storeOptions(cfg, log, tel, immutable.since)
	if err != nil {
		return errors.Join(err, client.Close())
	}
	store, err := cache.Open(cfg.Cache.Dir, opts)
	if err != nil {
		return errors.Join(err, client.Close())
	}
	alive, err := newKeepAlive(cfg, client, store, log, tel.meter)
	if err != nil {
		return errors.Join(err, store.Close(), client.Close())
	}
	ctx, stop := context.WithCancel(p.ctx)
	var background sync.WaitGroup
	background.Go(func() { newLifecycle(cfg, client, store, log).run(ctx) })
	background.Go(func() { immutable.run(ctx) })
	background.Go(func() { alive.run(ctx) })
	handler := proxy.New(proxy.Options{
		Upstreams: sources(cfg, client, log),
		Default:   cfg.DefaultUpstream,
		Store:     store,
		Log:       log,
		Meter:     tel.meter,
		Tracer:    tel.tracer,

		RepositoryLabel: cfg.Telemetry.RepositoryLabel,
	})
	pins := upkeep.NewPins(store, handler, log)
	background.Go(func() { pins.Run(ctx) })
	operators := admin.New(admin.Options{
		Store:          store,
		Clients:        handler,
		Upstreams:      client.Status,
		FetchManifests: pins.FetchManifests,
		Ready:          p.ctx.Err,
		Metrics:        tel.page,
		Name:           hostname(log),
		Version:        currentVersion(),
		Log:            log,
	})
	background.Go(func() { operators.Run(ctx) })
	err = listenAndServe(p.ctx, log, cfg, handlers{
		clients:  handler,
		admin:    operators.Handler(),
		commands: until(p.ctx, operators.API()),
	})
	stop()
	background.Wait()
	tel.pushLast()
	return errors.Join(err, store.Close(), client.Close())
}

// storeOptions are those of the cache as the configuration says. immutable is that
// of cache.Freshness.
func storeOptions(cfg *config.Config, log *slog.Logger, tel *telemetry,
	immutable func(cache.Repository, string) (time.Time, bool)) (cache.Options, error) {
	size, err := disk.Size(cfg.Cache.Dir)
	return cache.Options{
		MaxSize:  cfg.Cache.MaxSize.Of(size),
		MinFree:  cfg.Cache.MinFree.Of(size),
		LowWater: cfg.Cache.LowWater,
		Tags: cache.Freshness{
			TTL:          cfg.Tags.TTL,
			StaleIfError: cfg.Tags.StaleIfError,
			Negative:     cfg.Tags.NegativeTTL,
			Immutable:    immutable,
			ImmutableTTL: immutableTTL,
		},
		ScrubEvery:      scrubEvery(cfg),
		ScrubRate:       cfg.Cache.ScrubRate.Bytes,
		Pin:             cfg.Cache.Pins,
		PinAllPlatforms: cfg.Cache.PinAllPlatforms,
		Log:             log,
		Meter:           tel.meter,
		Tracer:          tel.tracer,
	}, err
}

// scrubEvery is that of cache.Options, where never is less than 0.
func scrubEvery(cfg *config.Config) time.Duration {
	if cfg.Cache.ScrubEvery == 0 {
		return -1
	}
	return cfg.Cache.ScrubEvery
}

// hostname is the name of this machine, which the status page shows.
func hostname(log *slog.Logger) string {
	name, err := os.Hostname()
	if err != nil {
		log.Warn("the status page has no name", "error", err)
	}
	return name
}

// until ends the requests that still run when ctx ends: a drain does not wait for
// a scrub.
func until(ctx context.Context, h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		bounded, cancel := context.WithCancel(r.Context())
		defer cancel()
		defer context.AfterFunc(ctx, cancel)()
		h.ServeHTTP(w, r.WithContext(bounded))
	})
}

// handlers are what each listener serves.
type handlers struct {
	clients, admin, commands http.Handler
}

// listenAndServe opens all listeners before it serves on any, and closes them
// when ctx ends or one fails.
func listenAndServe(ctx context.Context, log *slog.Logger, cfg *config.Config, h handlers) error {
	group, ctx := errgroup.WithContext(ctx)
	handed, err := inherited()
	if err != nil {
		return err
	}
	socket := socketPath(cfg.Cache.Dir)
	if len(socket) > maxSocketPath {
		log.Warn("commands such as larder ls cannot reach this process: the path of its socket is too long", "socket", socket)
		socket = ""
	}
	listenTCP := func(addr string) (net.Listener, error) { return new(net.ListenConfig).Listen(ctx, "tcp", addr) }
	servers := []struct {
		addr, what string
		listen     func(addr string) (net.Listener, error)
		handler    http.Handler
	}{
		{cfg.Listen, "clients", listenTCP, h.clients},
		{cfg.Admin, "admin", listenTCP, h.admin},
		{socket, "commands", func(path string) (net.Listener, error) { return listenUnix(ctx, path) }, h.commands},
	}
	listeners := make([]net.Listener, len(servers))
	for i, s := range servers {
		if l := handed[s.what]; l != nil {
			log.Info("listening where the service manager says", "for", s.what, "address", l.Addr())
			listeners[i] = l
			continue
		}
		if s.addr == "" {
			continue
		}
		l, err := s.listen(s.addr)
		if err != nil {
			err = fmt.Errorf("listen for %s: %w", s.what, err)
			for _, open := range listeners {
				if open != nil {
					err = errors.Join(err, open.Close())
				}
			}
			return err
		}
		listeners[i] = l
	}
	if at := listeners[0].Addr(); isExposed(at) {
		log.Warn("listening beyond loopback: whoever reaches this address can pull every image that the cache holds or that its credentials may fetch",
			"listen", at)
	}
	for i, s := range servers {
		if l := listeners[i]; l != nil {
			serve(ctx, group, log, l, s.handler)
		}
	}
	tell(log, isReady)
	context.AfterFunc(ctx, func() { tell(log, isStopping) })
	log.Info("ready", "version", currentVersion(), "listen", listeners[0].Addr(), "admin", cfg.Admin,
		"cache", cfg.Cache.Dir, "upstreams", len(cfg.Upstreams))
	return group.Wait()
}

// isExposed tells whether an address that is listened on can be reached from
// beyond this machine.
func isExposed(at net.Addr) bool {
	tcp, ok := at.(*net.TCPAddr)
	return ok && !tcp.IP.IsLoopback()
}

// serve runs one server in the group, and drains it when ctx ends.
func serve(ctx context.Context, group *errgroup.Group, log *slog.Logger, l net.Listener, h http.Handler) {
	var fresh newcomers
	server := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       3 * time.Minute,
		MaxHeaderBytes:    128 << 10, // a thousand ranges are some 30 kB
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		ConnState:         fresh.note,
	}
	accepting := make(chan struct{})
	group.Go(func() error {
		defer close(accepting)
		if err := server.Serve(l); ctx.Err() == nil {
			return fmt.Errorf("serve on %s: %w", l.Addr(), err)
		}
		return nil
	})
	group.Go(func() error {
		<-ctx.Done()
		log.Info("draining", "address", l.Addr(), "at_most", drain)
		bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), drain)
		defer cancel()
		if err := shutDown(bounded, server, l, accepting, &fresh); err != nil {
			log.Warn("bodies were cut at the end of the drain", "address", l.Addr())
		}
		return nil
	})
}

func newLogger(cfg *config.Config, w io.Writer) *slog.Logger {
	opts := &slog.HandlerOptions{Level: cfg.Log.Level}
	if cfg.Log.Format == "json" {
		return slog.New(traced{slog.NewJSONHandler(w, opts)})
	}
	return slog.New(traced{slog.NewTextHandler(w, opts)})
}
