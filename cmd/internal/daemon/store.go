package daemon

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"time"

	"github.com/larder-registry/larder/cache"
	"github.com/larder-registry/larder/cache/disk"
	"github.com/larder-registry/larder/cmd/internal/daemon/keep"
	"github.com/larder-registry/larder/config"
	"github.com/larder-registry/larder/upstream/name"
)

// OpenFolder opens the configured cache folder for a command, if no daemon has it.
// Nothing is scrubbed or evicted meanwhile: the daemon's flags may set another max_size
// than the configuration, which the command may not have. A folder in which no daemon
// ever ran is an error.
func OpenFolder(cfg *config.Config, log *slog.Logger) (*cache.Store, error) {
	dir := cfg.Cache.Dir
	if _, err := os.Stat(disk.LockPath(dir)); errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s is not a cache folder: name that of the daemon with --cache-dir, or the daemon's configuration with --config", dir)
	}
	opts, err := storeOptions(cfg, log)
	if err != nil {
		return nil, err
	}
	keeper, err := keep.New(cfg.Keep, log, nil)
	if err != nil {
		return nil, err
	}
	opts.ScrubEvery, opts.KeepAll = -1, true
	opts.Keep, opts.KeptDigests = keeper.Pins, keeper.Digests
	return cache.Open(dir, opts)
}

// storeOptions are those of the cache that the configuration sets.
func storeOptions(cfg *config.Config, log *slog.Logger) (cache.Options, error) {
	size, err := disk.Size(cfg.Cache.Dir)
	return cache.Options{
		MaxSize:  cfg.Cache.MaxSize.Of(size),
		MinFree:  cfg.Cache.MinFree.Of(size),
		LowWater: cfg.Cache.LowWater,
		Tags: cache.Freshness{
			TTL:          cfg.Tags.TTL,
			StaleIfError: cfg.Tags.StaleIfError,
			StaleIfGone:  cfg.Tags.StaleIfGone,
			Negative:     cfg.Tags.NegativeTTL,
			Fixed:        fixed(cfg),
			Cooldown:     cooldown(cfg),
		},
		VerifyOnRead:    verifyOnRead(cfg),
		NeedsProof:      needsProof(cfg),
		OnlyProven:      byClient(cfg),
		Canonical:       name.CanonicalHost,
		ScrubEvery:      scrubEvery(cfg),
		ScrubRate:       cfg.Cache.ScrubRate.Bytes,
		Pin:             cfg.Cache.Pins,
		PinAllPlatforms: cfg.Cache.PinAllPlatforms,
		Log:             log,
	}, err
}

// needsProof returns which upstreams have repositories that are not allowed, to some clients at
// least.
func needsProof(cfg *config.Config) func(host string) bool {
	return func(host string) bool {
		entry, ok := cfg.Match(host)
		return ok && (len(entry.Allow) > 0 || entry.ByClient())
	}
}

// byClient returns at which upstreams the clients' own rights decide.
func byClient(cfg *config.Config) func(host string) bool {
	return func(host string) bool {
		entry, ok := cfg.Match(host)
		return ok && entry.ByClient()
	}
}

// fixed tells the tags that the configuration calls immutable. It is nil if there are none.
func fixed(cfg *config.Config) func(cache.Repository, string) bool {
	if len(cfg.Tags.Immutable) == 0 {
		return nil
	}
	return func(repo cache.Repository, tag string) bool { return cfg.Tags.IsImmutable(repo.Image(tag)) }
}

// cooldown tells the configured cooldown of a tag. It is nil if there is none.
func cooldown(cfg *config.Config) func(cache.Repository, string) cache.Cooldown {
	if len(cfg.Tags.Cooldown) == 0 {
		return nil
	}
	return func(repo cache.Repository, tag string) cache.Cooldown {
		entry, _ := cfg.Tags.CooldownOf(repo.Image(tag))
		return cache.Cooldown{For: entry.For, First: entry.FirstWaits()}
	}
}

// scrubEvery is the configuration's interval; cache.Options says never by less
// than 0.
func scrubEvery(cfg *config.Config) time.Duration {
	if cfg.Cache.ScrubEvery == 0 {
		return -1
	}
	return cfg.Cache.ScrubEvery
}

// verifyOnRead is the configured word as a setting of the cache.
func verifyOnRead(cfg *config.Config) cache.VerifyOnRead {
	switch cfg.Cache.VerifyOnRead {
	case "first":
		return cache.VerifyFirst
	case "always":
		return cache.VerifyAlways
	}
	return cache.VerifyNever
}
