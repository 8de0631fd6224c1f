package config

import (
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/larder-registry/larder/upstream/name"
)

const (
	// defaultTimeout keeps the longest wait well under the 30 s that containerd
	// (from 2.3 on) waits for headers, so that it gets the reason before it gives
	// up.
	defaultTimeout = 20 * time.Second

	// minMaxSize is the smallest useful size of a cache, in bytes: the index and one
	// large layer fit in it.
	minMaxSize = 256 * humanize.MiByte

	// defaultKeepEvery follows tags within a working day. A question without news costs one
	// small request.
	defaultKeepEvery = 6 * time.Hour

	// minScrubEvery is the shortest rest between two passes of the scrub.
	minScrubEvery = time.Hour
	// minScrubRate reads a cache of 50 GiB within a day. It is in bytes per second.
	minScrubRate = humanize.MiByte

	// minLinkRate brings a layer of 1 GB in a little more than a day, and so the smallest
	// images at all. It is in bytes per second.
	minLinkRate = 10 * humanize.KByte

	// defaultSampleRatio shows where pulls spend their time, at no noticeable cost
	// in a warm cache.
	defaultSampleRatio = 0.05
)

// defaults returns the configuration without a file, except for what depends on
// other keys: see loader.complete.
func defaults() *Config {
	c := &Config{
		Listen: "127.0.0.1:5000",
		Admin:  "127.0.0.1:5001",
		Cache: Cache{
			MaxSize:      Amount{Bytes: 50 * humanize.GiByte},
			MinFree:      Amount{Percent: 5},
			LowWater:     0.9,
			ScrubEvery:   7 * 24 * time.Hour,
			VerifyOnRead: "never",
			ScrubRate:    Amount{Bytes: 20 * humanize.MByte},
		},
		Peers:  Peers{Listen: "0.0.0.0:5002", Span: SpanZone, Upload: 200 * humanize.MByte},
		Shared: Shared{S3: S3{Rate: 50 * humanize.MByte}},
		Tags: Tags{
			TTL:          time.Minute,
			StaleIfError: 30 * 24 * time.Hour,
			NegativeTTL:  10 * time.Second,
		},
		Access:    Access{Recheck: time.Hour, Offline: 30 * 24 * time.Hour, KeyFile: defaultKeyFile()},
		Log:       Log{Level: slog.LevelInfo, Format: "text"},
		Telemetry: Telemetry{SampleRatio: defaultSampleRatio},
	}
	for _, host := range append(name.ECRHosts(), name.DockerHub) {
		c.Upstreams = append(c.Upstreams, Upstream{Host: host, Timeout: defaultTimeout, Access: AccessNode})
	}
	return c
}

func defaultCacheDir() (string, error) {
	if os.Geteuid() == 0 {
		return "/var/lib/larder", nil
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, "larder"), nil
}
