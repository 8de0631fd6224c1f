package daemon

import (
	"cmp"
	"context"
	"fmt"
	"io/fs"
	"log/slog"
	"slices"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/larder-registry/larder/config"
	"github.com/larder-registry/larder/upstream"
	"github.com/larder-registry/larder/upstream/name"
)

// presence knows which upstreams are offline: those of the configuration, and what
// commands have changed since. What commands change lasts until the configuration is
// read again. It is safe for concurrent use.
type presence struct {
	cfg *config.Config // says which upstream serves a host
	log *slog.Logger

	mu         sync.RWMutex // guards what follows
	configured map[name.HostPattern]bool
	commanded  map[name.HostPattern]bool      // for an upstream, or one of its hosts
	ended      map[name.HostPattern]time.Time // when one of these ceased to be offline
}

func newPresence(cfg *config.Config, log *slog.Logger) *presence {
	p := &presence{cfg: cfg, log: log, ended: make(map[name.HostPattern]time.Time)}
	p.configured, p.commanded = make(map[name.HostPattern]bool), make(map[name.HostPattern]bool)
	for _, entry := range cfg.Upstreams {
		p.configured[entry.Host] = entry.Offline
	}
	return p
}

// isOffline reports whether the upstream of a host must not be asked.
func (p *presence) isOffline(host string) bool {
	now, _ := p.of(host)
	return now
}

// of reports whether the upstream of a host is offline, and when it last was.
func (p *presence) of(host string) (now bool, last time.Time) {
	exact, entry, ok := p.find(host)
	if !ok {
		return false, time.Time{}
	}
	p.mu.RLock()
	defer p.mu.RUnlock()
	if last = p.ended[exact]; p.ended[entry].After(last) {
		last = p.ended[entry]
	}
	return p.isOfflineLocked(exact, entry), last
}

func (p *presence) isOfflineLocked(exact, entry name.HostPattern) bool {
	for _, key := range []name.HostPattern{exact, entry} {
		if offline, said := p.commanded[key]; said {
			return offline
		}
	}
	return p.configured[entry]
}

// find returns a host in its canonical form, and the upstream that serves it.
func (p *presence) find(host string) (exact, entry name.HostPattern, ok bool) {
	canonical, ok := name.ParseRegistry(host)
	if !ok {
		return "", "", false
	}
	served, ok := p.cfg.Match(canonical)
	return name.HostPattern(canonical), served.Host, ok
}

// set is for a command: it takes a host, the pattern of an upstream for all of its hosts,
// or "" for all upstreams. It returns fs.ErrNotExist if there is no such upstream.
func (p *presence) set(host string, offline bool) error {
	keys, err := p.keysOf(host)
	if err != nil {
		return err
	}
	p.change(keys, offline)
	for _, key := range keys {
		p.log.Info("an upstream was set offline or online by a command", "upstream", key, "offline", offline)
	}
	return nil
}

func (p *presence) change(keys []name.HostPattern, offline bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	for _, key := range keys {
		for below := range p.commanded { // hosts that were set by themselves
			if _, entry, ok := p.find(string(below)); ok && entry == key {
				p.noteLocked(below, entry, offline, now)
				delete(p.commanded, below)
			}
		}
		entry := key
		if _, served, ok := p.find(string(key)); ok {
			entry = served
		}
		p.noteLocked(key, entry, offline, now)
		p.commanded[key] = offline
	}
}

// noteLocked records the end of a time offline, before the state of key becomes another.
func (p *presence) noteLocked(key, entry name.HostPattern, offline bool, now time.Time) {
	if !offline && p.isOfflineLocked(key, entry) {
		p.ended[key] = now
	}
}

// keysOf returns the upstreams, or the one host, that a command is about.
func (p *presence) keysOf(host string) ([]name.HostPattern, error) {
	var all []name.HostPattern
	pattern, isPattern := name.ParseHostPattern(host)
	for _, entry := range p.cfg.Upstreams {
		if host == "" || isPattern && pattern == entry.Host {
			all = append(all, entry.Host)
		}
	}
	if exact, _, ok := p.find(host); ok && len(all) == 0 {
		all = []name.HostPattern{exact}
	}
	if len(all) == 0 {
		return nil, unknownUpstream(host)
	}
	return all, nil
}

// unknownUpstream is the error for a host that no upstream has. It is a fs.ErrNotExist, which its
// text leaves out: a file has nothing to do with it.
type unknownUpstream string

func (u unknownUpstream) Error() string {
	return fmt.Sprintf("no configured upstream serves %q: expected the host or the pattern of one of upstreams in the configuration", string(u))
}

// Is is for errors.Is.
func (unknownUpstream) Is(target error) bool { return target == fs.ErrNotExist }

// reset makes all upstreams what the configuration says. Upstreams that a new
// configuration does not have stay what the old one said.
func (p *presence) reset(cfg *config.Config) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	was := p.offlineLocked()
	for _, entry := range cfg.Upstreams {
		if _, known := p.configured[entry.Host]; known {
			p.configured[entry.Host] = entry.Offline
		}
	}
	clear(p.commanded)
	still := p.offlineLocked()
	for _, key := range was {
		if !slices.Contains(still, key) {
			p.ended[key] = now
		}
	}
}

// offlineLocked returns the upstreams, and the hosts that were set by themselves, that are
// offline.
func (p *presence) offlineLocked() []name.HostPattern {
	var all []name.HostPattern
	for entry := range p.configured {
		if p.isOfflineLocked(entry, entry) {
			all = append(all, entry)
		}
	}
	for key, offline := range p.commanded {
		if _, isEntry := p.configured[key]; offline && !isEntry {
			all = append(all, key)
		}
	}
	slices.Sort(all)
	return all
}

// offline returns the upstreams, and the hosts that were set by themselves, that are
// offline, sorted.
func (p *presence) offline() []name.HostPattern {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.offlineLocked()
}

// addTo adds the upstreams that are offline and not in use to a status.
func (p *presence) addTo(all []upstream.Status) []upstream.Status {
	for _, key := range p.offline() {
		if !slices.ContainsFunc(all, func(st upstream.Status) bool { return st.Host == string(key) }) {
			all = append(all, upstream.Status{Host: string(key), Auth: "none", Offline: true})
		}
	}
	slices.SortFunc(all, func(a, b upstream.Status) int { return cmp.Compare(a.Host, b.Host) })
	return all
}

// observe exports which upstreams are offline: a pattern is, if one of its hosts is.
func (p *presence) observe(provider metric.MeterProvider) error {
	meter := provider.Meter("github.com/larder-registry/larder")
	_, err := meter.Int64ObservableGauge("larder.upstream.offline",
		metric.WithDescription("1 while an upstream is offline, as the configuration or a command says; else 0."),
		metric.WithInt64Callback(func(_ context.Context, o metric.Int64Observer) error {
			offline := make(map[name.HostPattern]int64)
			for _, key := range p.offline() {
				offline[key] = 1
				if _, entry, ok := p.find(string(key)); ok {
					offline[entry] = 1
				}
			}
			for _, entry := range p.cfg.Upstreams {
				o.Observe(offline[entry.Host], metric.WithAttributes(attribute.String("upstream", string(entry.Host))))
			}
			return nil
		}))
	if err != nil {
		return fmt.Errorf("set up metrics: %w", err)
	}
	return nil
}
