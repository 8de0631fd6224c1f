package cache

import (
	"cmp"
	"log/slog"
	"time"

	"github.com/larder-registry/larder/cache/disk"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"
)

// Options are the settings of a store. The zero value is a working one.
type Options struct {
	// MaxSize is how many bytes the folder may take with everything in it. 0 means any
	// number.
	MaxSize int64
	// MinFree is how many bytes of the file system stay free. Some always do, for the index.
	MinFree int64
	// LowWater is the part of MaxSize at which an eviction ends. 0 means 0.9.
	LowWater float64
	// Tags is how long answers about tags and missing things are valid.
	Tags Freshness
	// Segment, Connections and Retry are those of [fill.Settings], for tests. 0 means the
	// defaults there.
	Segment     int64
	Connections int
	Retry       Retry
	// VerifyOnRead says when a blob at rest is hashed before it is served: see
	// [blobs.VerifyOnRead].
	VerifyOnRead VerifyOnRead
	// ScrubEvery is how often all blobs are read and checked in the background. 0 means a
	// week; negative means never.
	ScrubEvery time.Duration
	// ScrubRate is how many bytes of that are read in a second. 0 means 20 MB: a general
	// purpose cloud volume has at least 125 MB/s, a spinning disk about as much, so the
	// workloads keep five sixths of it, and 50 GiB take three quarters of an hour.
	ScrubRate int64
	// Pin says which images are pinned when they come, and when the store is opened, by their
	// names: <upstream>/<repository>:<tag>. Nil means none.
	Pin func(image string) bool
	// PinAllPlatforms makes these pins hold all platforms: see [Store.PinAllPlatforms].
	PinAllPlatforms bool
	// KeepAll evicts nothing to free space: MaxSize and MinFree bound what may be pinned, and
	// nothing else. It is for a command that has the folder while no daemon runs, and may not
	// know the bounds of the daemon.
	KeepAll bool
	// Log is where the store reports. Nil means slog.Default().
	Log *slog.Logger
	// Meter has the instruments. Nil means none.
	Meter metric.MeterProvider
	// Tracer begins a span for each fill, in the trace of the request that started it. Nil
	// means none.
	Tracer trace.TracerProvider
	// Now is the clock for tags, and for times of use. Nil means time.Now.
	Now func() time.Time

	// For tests of this package.
	fills int        // bounds the fills that run at once; 0 means 256
	steps disk.Steps // may fail
}

func (o Options) withDefaults() Options {
	o.LowWater = cmp.Or(o.LowWater, 0.9)
	o.fills = cmp.Or(o.fills, 256)
	o.ScrubEvery = cmp.Or(o.ScrubEvery, 7*24*time.Hour)
	o.ScrubRate = cmp.Or(o.ScrubRate, 20_000_000)
	if o.Log == nil {
		o.Log = slog.Default()
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return o
}

// Freshness is how long what an upstream said is valid. A zero duration means not at all.
type Freshness struct {
	// TTL is how long a tag is served without asking.
	TTL time.Duration
	// StaleIfError is how long after the last confirmation a tag is still served while the
	// upstream cannot be asked.
	StaleIfError time.Duration
	// Negative is how long a missing tag, manifest or blob, or a refusal, is remembered; and
	// how long the store waits before it asks again about a tag after the upstream could not
	// be asked.
	Negative time.Duration

	// Immutable, if set, tells since when it has been known that an upstream does not let a
	// tag be moved; false if it does, or nothing is known. A tag that was confirmed after
	// that is served for ImmutableTTL without asking, or for TTL if that is longer. It is
	// called while clients wait, so it must not block.
	Immutable    func(repo Repository, tag string) (since time.Time, ok bool)
	ImmutableTTL time.Duration
}
