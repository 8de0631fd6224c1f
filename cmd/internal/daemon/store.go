package daemon

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/larder-registry/larder/cache"
	"github.com/larder-registry/larder/cache/disk"
	"github.com/larder-registry/larder/config"
)

// OpenFolder opens the configured cache folder for a command, if no daemon has it.
// Nothing is scrubbed or evicted meanwhile: the daemon's flags may set another max_size
// than the configuration, which the command may not have. A folder in which no daemon
// ever ran is an error.
func OpenFolder(cfg *config.Config, log *slog.Logger) (*cache.Store, error) {
	dir := cfg.Cache.Dir
	if _, err := os.Stat(filepath.Join(dir, "larder.lock")); errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s is not a cache folder: no daemon runs there, nor has one", dir)
	}
	opts, err := storeOptions(cfg, log)
	if err != nil {
		return nil, err
	}
	opts.ScrubEvery, opts.KeepAll = -1, true
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
			Negative:     cfg.Tags.NegativeTTL,
		},
		VerifyOnRead:    verifyOnRead(cfg),
		ScrubEvery:      scrubEvery(cfg),
		ScrubRate:       cfg.Cache.ScrubRate.Bytes,
		Pin:             cfg.Cache.Pins,
		PinAllPlatforms: cfg.Cache.PinAllPlatforms,
		Log:             log,
	}, err
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
