package daemon

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/larder-registry/larder/cache"
	"github.com/larder-registry/larder/cmd/internal/daemon/bring"
	"github.com/larder-registry/larder/cmd/internal/daemon/carry"
	"github.com/larder-registry/larder/cmd/internal/daemon/conns"
	"github.com/larder-registry/larder/cmd/internal/daemon/keep"
	"github.com/larder-registry/larder/cmd/internal/daemon/share"
	"github.com/larder-registry/larder/cmd/internal/daemon/tlsfiles"
	"github.com/larder-registry/larder/cmd/internal/daemon/upkeep"
	"github.com/larder-registry/larder/config"
	"github.com/larder-registry/larder/proxy"
	"github.com/larder-registry/larder/proxy/access"
	"github.com/larder-registry/larder/proxy/admin"
	"github.com/larder-registry/larder/proxy/audit"
	"github.com/larder-registry/larder/proxy/password"
	"github.com/larder-registry/larder/proxy/policy"
	"github.com/larder-registry/larder/upstream"
	"github.com/larder-registry/larder/upstream/link"
)

// Options are what a daemon is given beside its configuration. The zero value is
// one that logs nothing.
type Options struct {
	// Version is the daemon's own, as its log, its status page and its telemetry
	// tell it.
	Version string

	// Env is the environment, in the form of [os.Environ]. It may name an
	// OpenTelemetry collector.
	Env []string

	// Log receives what the daemon logs; nil discards it. See [NewLogger].
	Log *slog.Logger

	// ServiceManager makes the daemon take over the sockets that a service manager
	// opened for this process, and tell it when the daemon is ready and when it
	// stops. One daemon of a process can do so.
	ServiceManager bool

	// PeerPatience is how long another node may give no sign of life, for tests; 0 means
	// [peer.Patience].
	PeerPatience time.Duration

	// BucketPatience is how long the bucket may take until its answer begins, for tests; 0 means
	// [bucket.Patience].
	BucketPatience time.Duration

	// Drain bounds how long answers may go on when the daemon stops; 0 means 25 s.
	Drain time.Duration
}

// Daemon is a Larder that runs. It is made by [New].
type Daemon struct {
	cfg       *config.Config
	opts      Options
	log       *slog.Logger
	telemetry *telemetry
	presence  *presence
	tls       *tlsfiles.Source // nil for plain HTTP
	reloads   reloads
	link      *link.Link
	client    *upstream.Client
	sharing   *share.Sharing // nil if this node shares nothing with others
	shelf     *shelf         // nil if this node shares nothing through a bucket
	store     *cache.Store
	audit     *audit.Log
	policy    *policy.Policy
	services  *http.Client    // of the certificates that signatures name
	passwords *password.Guard // nil if clients need no password
	access    *access.Gate    // nil if no upstream's clients have rights of their own
	proxy     *proxy.Proxy
	bringer   *bring.Bringer
	keeper    *keep.Keeper
	pins      *upkeep.Pins
	proofs    *upkeep.Proofs
	upkeep    []func(context.Context) // each runs until its context ends
	listeners listeners

	applied    atomic.Pointer[config.Config] // what is in use after reloads
	importKeys atomic.Pointer[[]string]      // import.verify, which a reload replaces
}

// New opens the cache folder and the listeners. From then on clients can connect;
// they are answered once Serve runs. ctx bounds the opening only. The caller
// closes the daemon.
func New(ctx context.Context, cfg *config.Config, opts Options) (*Daemon, error) {
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	opts.Drain = cmp.Or(opts.Drain, defaultDrain)
	d := &Daemon{cfg: cfg, opts: opts, log: opts.Log}
	d.applied.Store(cfg)
	d.importKeys.Store(&cfg.Import.Verify)
	logWarnings(d.log, cfg)
	if err := d.open(ctx); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

// Addr is the address at which clients are served.
func (d *Daemon) Addr() net.Addr { return d.listeners.clients.Addr() }

// Serve answers until ctx ends or a listener fails, then drains: running answers
// may go on for a while. It returns when everything that it started has ended;
// the error is that of a listener. It is called once.
func (d *Daemon) Serve(ctx context.Context) error {
	background, stop := context.WithCancel(ctx)
	defer stop()
	operators := d.operators(ctx)
	var running sync.WaitGroup
	for _, run := range append(d.upkeep, operators.Run) {
		running.Go(func() { run(background) })
	}
	err := d.serve(ctx, operators)
	stop()
	running.Wait()
	d.telemetry.pushLast()
	return err
}

// operators returns what serves operators while a daemon runs, until ctx ends.
func (d *Daemon) operators(ctx context.Context) *admin.Admin {
	name, err := os.Hostname()
	if err != nil {
		d.log.Warn("the status page has no name", "error", err)
	}
	var checkHost func(*http.Request) error
	if d.listeners.admin != nil {
		checkHost = d.listeners.hosts(d.listeners.admin).Check
	}
	return admin.New(admin.Options{
		Store:          d.store,
		CheckHost:      checkHost,
		Clients:        d.proxy,
		Upstreams:      func() []upstream.Status { return d.presence.addTo(d.client.Status()) },
		Link:           d.link.Status,
		Bucket:         d.bucketStatus(),
		Peers:          d.peersAtAGlance(),
		Policy:         d.policy,
		SetOffline:     d.setOffline,
		FetchManifests: d.bringer.FetchAllManifests,
		Ready:          ctx.Err,
		AuditDegraded:  d.audit.Degraded,
		Settings:       d.settings,
		Metrics:        d.telemetry.page,
		Meter:          d.telemetry.meter,
		Name:           name,
		Version:        d.opts.Version,
		Log:            d.log,
	})
}

// settings returns the configuration for the status page.
func (d *Daemon) settings() []admin.Setting {
	var all []admin.Setting
	for _, s := range d.applied.Load().Effective() {
		all = append(all, admin.Setting(s))
	}
	return all
}

// setOffline is for a command: see [presence.set].
func (d *Daemon) setOffline(host string, offline bool) error {
	if err := d.presence.set(host, offline); err != nil {
		return err
	}
	d.presenceChanged()
	return nil
}

// presenceChanged tells everything that asks upstreams that others may be asked now.
func (d *Daemon) presenceChanged() {
	d.client.CutOffline()
	d.pins.TryAgain()
	d.keeper.TryAgain()
	d.proofs.TryAgain()
}

// serve runs a server for each listener until ctx ends or one of them fails.
func (d *Daemon) serve(ctx context.Context, operators *admin.Admin) error {
	servers, err := d.servers(ctx, operators)
	if err != nil {
		return err
	}
	group, serving := errgroup.WithContext(ctx)
	for _, server := range servers {
		group.Go(func() error { return server.serve(serving) })
		group.Go(func() error { server.drainAfter(serving); return nil })
	}
	d.notify(isReady)
	context.AfterFunc(serving, func() { d.notify(isStopping) })
	d.log.Info("ready", "version", d.opts.Version, "listen", d.Addr(), "tls", d.tls != nil, "admin", d.cfg.Admin,
		"cache", d.cfg.Cache.Dir, "upstreams", len(d.cfg.Upstreams))
	return group.Wait()
}

// servers returns a server for each listener.
func (d *Daemon) servers(ctx context.Context, operators *admin.Admin) ([]*server, error) {
	descriptors, err := conns.Descriptors()
	if err != nil {
		return nil, err
	}
	var all []*server
	for _, s := range []struct {
		name     string
		listener net.Listener
		bounds   conns.Bounds
		handler  http.Handler
	}{
		{"clients", d.listeners.clients, conns.ForClients(descriptors, d.sharing != nil), d.proxy},
		{"admin", d.listeners.admin, conns.ForAdmin(descriptors), operators.Handler()},
	} {
		if s.listener == nil {
			continue
		}
		limited, err := conns.Limit(s.listener, s.name, s.bounds, d.telemetry.meter, d.log)
		if err != nil {
			return nil, err
		}
		server := newTCPServer(limited, s.handler, d.opts.Drain, d.log)
		server.welcomes = s.listener == d.listeners.clients && !d.listeners.inherited // which the next process accepts from
		if s.listener == d.listeners.clients && d.tls != nil {
			server.secure(d.tls.Config())
		}
		all = append(all, server)
	}
	if d.sharing != nil {
		server, err := d.peerServer(descriptors)
		if err != nil {
			return nil, err
		}
		all = append(all, server)
	}
	if d.listeners.commands != nil {
		api := commandsAPI(operators.API(), carry.Options{
			Store: d.store, Keys: carry.OpenVerifiers(func() []string { return *d.importKeys.Load() }), Served: served(d.cfg),
			Bringer: d.bringer, FetchReferrers: d.proxy.FetchReferrers, Log: d.log,
		})
		d.bringer.AddTo(api, userOf)
		addKept(api, d.keeper)
		addAccess(api, d.access)
		d.sharing.AddTo(api)
		addPolicy(api, d.policy, d.proxy)
		all = append(all, newSocketServer(d.listeners.commands, until(ctx, api), d.opts.Drain, d.log))
	}
	return all, nil
}

// notify tells the service manager, if the daemon is to.
func (d *Daemon) notify(n notice) {
	if d.opts.ServiceManager {
		n.send(d.log)
	}
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

// Close closes what New opened, after Serve has returned or without it.
func (d *Daemon) Close() error {
	errs := []error{d.listeners.close(), d.audit.Close()}
	if d.store != nil {
		errs = append(errs, d.store.Close())
	}
	errs = append(errs, d.sharing.Close(), d.shelf.Close())
	if d.client != nil {
		errs = append(errs, d.client.Close())
	}
	if d.telemetry != nil {
		d.telemetry.end(d.log)
	}
	return errors.Join(errs...)
}
