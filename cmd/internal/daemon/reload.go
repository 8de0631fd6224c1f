package daemon

import (
	"context"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"strings"

	"go.opentelemetry.io/otel/metric"

	"github.com/larder-registry/larder/cmd/internal/daemon/tlsfiles"
	"github.com/larder-registry/larder/config"
	"github.com/larder-registry/larder/proxy/audit"
	"github.com/larder-registry/larder/upstream/link"
)

// LinkRules are the rules for the line to the upstreams that the configuration sets.
func LinkRules(cfg *config.Config) link.Rules {
	return link.Rules{
		Rate:       cfg.Link.Rate,
		Background: cfg.Link.Background.Rate,
		Hours:      link.Hours(cfg.Link.Background.Hours),
	}
}

// tlsFiles are the files of TLS that the configuration names.
func tlsFiles(cfg *config.Config) tlsfiles.Files {
	return tlsfiles.Files{Cert: cfg.TLS.Cert, Key: cfg.TLS.Key, ClientCA: cfg.TLS.ClientCA}
}

// auditSettings are those of the audit that the configuration sets.
func auditSettings(cfg *config.Config) audit.Settings {
	return audit.Settings{File: cfg.Audit.File, Required: cfg.Audit.Required}
}

// logWarnings logs what in a valid configuration is hardly meant.
func logWarnings(log *slog.Logger, cfg *config.Config) {
	for _, w := range cfg.Warnings {
		log.Warn("the configuration has a value that is hardly meant", "file", w.File, "line", w.Line, "key", w.Key, "problem", w.Problem)
	}
}

// reloads counts the configurations that were not valid.
type reloads struct{ failures metric.Int64Counter }

func newReloads(provider metric.MeterProvider) (reloads, error) {
	failures, err := provider.Meter("github.com/larder-registry/larder").Int64Counter("larder.config.reload.failures",
		metric.WithUnit("{reload}"), metric.WithDescription("Configurations that were read again and not valid."))
	if err != nil {
		return reloads{}, fmt.Errorf("set up metrics: %w", err)
	}
	failures.Add(context.Background(), 0)
	return reloads{failures}, nil
}

// Reload applies a configuration that was read again: link, keep, import, audit, policy, which upstreams are
// offline, the level of the log, and the files of TLS and of users if there were some before. It
// names other keys that have changed: they need a restart. If err is
// not nil, the configuration could not be read, and the one before stays. It may be called
// while Serve runs, by one goroutine.
func (d *Daemon) Reload(cfg *config.Config, err error) {
	if err != nil {
		d.reloads.failures.Add(context.Background(), 1)
		d.log.Error("the configuration is not valid; the one before stays in use", "error", err)
		return
	}
	if err := d.usePolicy(cfg); err != nil {
		d.reloads.failures.Add(context.Background(), 1)
		d.log.Error("a file of the policy is not valid; the configuration before stays in use", "error", err)
		return
	}
	d.applied.Store(inUse(d.cfg, cfg))
	setLevel(d.log, cfg.Log.Level)
	logWarnings(d.log, cfg)
	d.importKeys.Store(&cfg.Import.Verify)
	d.keeper.Set(cfg.Keep)
	d.audit.Use(auditSettings(cfg))
	d.link.Set(LinkRules(cfg))
	if d.tls != nil && cfg.TLS.On() {
		d.tls.Use(tlsFiles(cfg))
	}
	if d.passwords != nil && cfg.Auth.On() {
		d.passwords.Use(cfg.Auth.Htpasswd)
	}
	if d.sharing != nil && cfg.Peers.On() {
		d.sharing.Use(cfg.Peers.KeyFile)
	}
	d.shelf.Use(cfg.Shared.KeyFile)
	d.presence.reset(cfg)
	d.presenceChanged()
	d.log.Info("the configuration was read again", "link", LinkRules(cfg).String(), "offline", d.presence.offline())
	if keys := restartKeys(d.cfg, cfg); len(keys) > 0 {
		d.log.Warn("these keys of the configuration have changed and need a restart", "keys", strings.Join(keys, ", "))
	}
}

// restartKeys returns the keys at the top of the configuration in which two differ, beside what
// Reload applies.
func restartKeys(old, changed *config.Config) []string {
	a, b := reflect.ValueOf(withoutApplied(old)), reflect.ValueOf(withoutApplied(changed))
	var keys []string
	for i := range a.NumField() {
		if !reflect.DeepEqual(a.Field(i).Interface(), b.Field(i).Interface()) {
			keys = append(keys, config.KeyOf(a.Type().Field(i).Name))
		}
	}
	return keys
}

// inUse returns the configuration that is in use after Reload has applied a changed one.
func inUse(old, changed *config.Config) *config.Config {
	c := *old
	c.Link, c.Keep, c.Import, c.Audit, c.Policy = changed.Link, changed.Keep, changed.Import, changed.Audit, changed.Policy
	c.Log.Level = changed.Log.Level
	if c.TLS.On() && changed.TLS.On() {
		c.TLS = changed.TLS
	}
	if c.Auth.On() && changed.Auth.On() {
		c.Auth = changed.Auth
	}
	if c.Peers.On() && changed.Peers.On() {
		c.Peers.KeyFile = changed.Peers.KeyFile
	}
	c.Upstreams = slices.Clone(c.Upstreams)
	for i := range c.Upstreams {
		for _, u := range changed.Upstreams {
			if u.Host == c.Upstreams[i].Host {
				c.Upstreams[i].Offline = u.Offline
			}
		}
	}
	return &c
}

// withoutApplied returns a configuration without what Reload applies.
func withoutApplied(cfg *config.Config) config.Config {
	c := *cfg
	c.Link = config.Link{}
	if c.TLS.On() { // with others, or the same; but not between HTTP and HTTPS
		c.TLS = config.TLS{Cert: "set"}
	}
	c.Keep, c.Import, c.Audit, c.Policy = nil, config.Import{}, config.Audit{}, nil
	if c.Peers.On() {
		c.Peers.KeyFile = "set"
	}
	if c.Shared.KeyFile != "" {
		c.Shared.KeyFile = "set"
	}
	c.Log.Level = 0
	if c.Auth.On() {
		c.Auth = config.ClientAuth{Htpasswd: "set"}
	}
	c.Warnings = nil
	c.Upstreams = slices.Clone(c.Upstreams)
	for i := range c.Upstreams {
		c.Upstreams[i].Offline = false
	}
	return c
}
