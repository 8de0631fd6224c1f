package daemon

import (
	"context"
	"net/http"

	"github.com/larder-registry/larder/cache"
	"github.com/larder-registry/larder/cmd/internal/daemon/bring"
	"github.com/larder-registry/larder/cmd/internal/daemon/keep"
	"github.com/larder-registry/larder/cmd/internal/daemon/share"
	"github.com/larder-registry/larder/cmd/internal/daemon/tlsfiles"
	"github.com/larder-registry/larder/cmd/internal/daemon/upkeep"
	"github.com/larder-registry/larder/proxy"
	"github.com/larder-registry/larder/proxy/audit"
	"github.com/larder-registry/larder/proxy/password"
	"github.com/larder-registry/larder/upstream"
	"github.com/larder-registry/larder/upstream/link"
)

// open opens what the daemon consists of. After an error, Close closes the rest.
func (d *Daemon) open(ctx context.Context) error {
	if err := d.openUpstreams(ctx); err != nil {
		return err
	}
	immutable, pushed := upkeep.NewImmutableTags(d.cfg, d.client, d.log), upkeep.NewPushTimes(d.cfg, d.client, d.log)
	if err := d.openStore(immutable, pushed); err != nil {
		return err
	}
	if err := d.openListeners(ctx); err != nil {
		return err
	}
	if err := d.openProxy(pushed); err != nil {
		return err
	}
	return d.addUpkeep(immutable)
}

// openUpstreams opens telemetry and the audit, which all other steps use, and the clients of upstreams and other nodes.
func (d *Daemon) openUpstreams(ctx context.Context) (err error) {
	if d.telemetry, err = newTelemetry(ctx, d.cfg.Telemetry, d.opts.Version, d.opts.Env, d.log); err != nil {
		return err
	}
	meter := d.telemetry.meter
	d.presence = newPresence(d.cfg, d.log)
	if err := d.presence.observe(meter); err != nil {
		return err
	}
	if d.audit, err = audit.Open(auditSettings(d.cfg), meter, d.log); err != nil {
		return err
	}
	d.link = link.New(LinkRules(d.cfg))
	if err := d.link.Observe(meter); err != nil {
		return err
	}
	if d.reloads, err = newReloads(meter); err != nil {
		return err
	}
	d.client = upstream.NewClient(upstream.Options{
		Lookup: Lookup(d.cfg), Offline: d.presence.isOffline, Link: d.link, Log: d.log, Meter: meter, Tracer: d.telemetry.tracer,
	})
	d.sharing, err = share.Open(ctx, d.cfg.Peers, share.Options{
		Version: d.opts.Version, Rights: rights(d.cfg), Meter: meter, Tracer: d.telemetry.tracer, Log: d.log, Patience: d.opts.PeerPatience,
	})
	if err != nil {
		return err
	}
	d.shelf, err = d.openShelf(ctx)
	return err
}

// openStore opens the cache folder.
func (d *Daemon) openStore(immutable *upkeep.ImmutableTags, pushed *upkeep.PushTimes) error {
	opts, err := storeOptions(d.cfg, d.log)
	if err != nil {
		return err
	}
	if d.keeper, err = keep.New(d.cfg.Keep, d.log, d.telemetry.meter); err != nil {
		return err
	}
	opts.Tags.Immutable, opts.Tags.ImmutableTTL = immutable.Since, upkeep.ImmutableTTL
	opts.Tags.Offline = d.presence.of
	opts.Tags.Pushed = pushed.Of
	opts.Keep, opts.KeptDigests, opts.Tags.Kept = d.keeper.Pins, d.keeper.Digests, d.keeper.ServesRecorded
	opts.Meter, opts.Tracer = d.telemetry.meter, d.telemetry.tracer
	opts.Mismatched, opts.Filled = d.onMismatched, d.onFilled
	d.store, err = cache.Open(d.cfg.Cache.Dir, opts)
	return err
}

// openListeners opens the listeners, with the certificate and the passwords of clients.
func (d *Daemon) openListeners(ctx context.Context) (err error) {
	if d.cfg.TLS.On() {
		if d.tls, err = tlsfiles.Open(tlsFiles(d.cfg), d.telemetry.meter, d.log); err != nil {
			return err
		}
	}
	if d.listeners, err = listen(ctx, d.cfg, d.opts.ServiceManager, d.log); err != nil {
		return err
	}
	if d.cfg.Auth.On() {
		d.passwords, err = password.Open(d.cfg.Auth.Htpasswd, d.telemetry.meter, d.log)
	}
	return err
}

// openProxy makes the proxy, the clients' rights and the policy.
func (d *Daemon) openProxy(pushed *upkeep.PushTimes) (err error) {
	d.access = openAccess(d.cfg, d.log)
	if d.policy, err = openPolicy(d.cfg, d.store, pushed, d.telemetry.meter, d.log); err != nil {
		return err
	}
	var authenticate func(*http.Request) (string, error)
	if d.passwords != nil {
		authenticate = d.passwords.Check
	}
	d.proxy = proxy.New(proxy.Options{
		Authenticate: authenticate,
		Access:       d.access,
		Realm:        d.cfg.Access.Realm,
		Policy:       d.policy,
		Audit:        d.audit,
		Upstreams:    d.sources(),
		Default:      d.cfg.DefaultUpstream,
		Store:        d.store,
		CheckHost:    d.listeners.hosts(d.listeners.clients).Check,
		StatusPage:   d.listeners.statusPage(),
		Log:          d.log,
		Meter:        d.telemetry.meter,
		Tracer:       d.telemetry.tracer,

		RepositoryLabel: d.cfg.Telemetry.RepositoryLabel,
	})
	d.services = d.client.Services()
	return d.usePolicy(d.cfg)
}

// addUpkeep adds everything that Serve runs in the background.
func (d *Daemon) addUpkeep(immutable *upkeep.ImmutableTags) error {
	d.bringer = bring.New(d.proxy, d.store, d.log)
	d.keeper.Use(d.bringer, d.store, d.client.FetchPostponed)
	alive, err := upkeep.NewKeepAlive(d.cfg, d.client, d.store, d.log, d.telemetry.meter)
	if err != nil {
		return err
	}
	lifecycle := upkeep.NewLifecycle(d.cfg, d.client, d.store, d.log)
	d.pins = upkeep.NewPins(d.store, d.proxy, d.client.FetchPostponed, d.log)
	d.proofs = upkeep.NewProofs(d.store, d.proxy.Prove, d.log)
	d.upkeep = append(d.upkeep, lifecycle.Run, immutable.Run, alive.Run, d.pins.Run, d.keeper.Run, d.proofs.Run, d.policy.Run)
	if d.sharing != nil {
		d.upkeep = append(d.upkeep, d.sharing.Run)
	}
	if d.shelf != nil {
		d.upkeep = append(d.upkeep, d.shelf.Run, d.shelf.FollowKeys)
	}
	if d.tls != nil {
		d.upkeep = append(d.upkeep, d.tls.Run)
	}
	if d.passwords != nil {
		d.upkeep = append(d.upkeep, d.passwords.Run)
	}
	if d.access != nil {
		d.upkeep = append(d.upkeep, d.access.Run)
	}
	return nil
}
