package cache

import (
	"log/slog"
	"time"

	"github.com/larder-registry/larder/cache/disk"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"
)

// Options are the settings of a store. The zero value is a working one.
type Options struct {
	// MaxSize is how many bytes the folder may take, with all that is in it. 0
	// means any number.
	MaxSize int64
	// MinFree is how many bytes of the file system stay free. There are always
	// some, for the index.
	MinFree int64
	// LowWater is the part of MaxSize at which an eviction ends. 0 means 0.9.
	LowWater float64
	// Tags is how long answers about tags and missing things hold.
	Tags Freshness
	// Segment is how many bytes a connection asks for at a time, and the most
	// that a client may have to wait for before the byte it wants. Blobs of
	// more than two segments are fetched in parallel. 0 means 8 MiB: 128 MiB at 50
	// MB/s a connection took 0.75, 0.76 and 0.87 s with segments of 2, 8 and 16
	// MiB, and with 50 ms of latency 1.9, 1.2 and 1.0 s (four connections each;
	// one connection: 2.4 and 3.3 s).
	Segment int64
	// Connections is how many connections one fill may use. 0 means 4.
	Connections int
	// Leapers is how many more a fill may use for clients that wait at offsets
	// which nobody is near. 0 means 8.
	Leapers int
	// Spare bounds, over all fills, the connections beyond the first of each.
	// 0 means 32.
	Spare int
	// Fills bounds the fills that run at once; further ones wait. 0 means 256.
	Fills int
	// ScrubEvery is how often all blobs are read and checked in the background.
	// 0 means a week; negative means never.
	ScrubEvery time.Duration
	// ScrubRate is how many bytes of that are read in a second. 0 means 20 MB: a
	// general purpose cloud volume has at least 125 MB/s, a spinning disk about as
	// much, so the workloads keep five sixths of it, and 50 GiB take three quarters
	// of an hour.
	ScrubRate int64
	// Pin says which images are pinned as they come, and as they are found when
	// the store is opened, by their names: <upstream>/<repository>:<tag>. Nil
	// means none.
	Pin func(image string) bool
	// PinAllPlatforms has these pins be of all platforms: see
	// [Store.PinAllPlatforms].
	PinAllPlatforms bool
	// KeepAll has nothing be evicted to make room: MaxSize and MinFree bound what
	// may be pinned, and no more. It is for a command that has the folder while no
	// daemon runs, and may not know the bounds that the daemon was given.
	KeepAll bool
	// Retry is how broken connections are resumed.
	Retry Retry
	// Log is where the store reports. Nil means slog.Default().
	Log *slog.Logger
	// Meter has the instruments. Nil means none.
	Meter metric.MeterProvider
	// Tracer begins a span for each fill, in the trace of the request that began
	// it. Nil means none.
	Tracer trace.TracerProvider
	// Now is the clock for tags. Nil means time.Now.
	Now func() time.Time

	steps disk.Steps // of a test that has steps fail
}

func (o Options) withDefaults() Options {
	setDefault(&o.LowWater, 0.9)
	setDefault(&o.Segment, 8<<20)
	setDefault(&o.Connections, 4)
	setDefault(&o.Leapers, 8)
	setDefault(&o.Spare, 32)
	setDefault(&o.Fills, 256)
	setDefault(&o.ScrubEvery, scrubEvery)
	setDefault(&o.ScrubRate, scrubRate)
	o.Retry = o.Retry.withDefaults()
	if o.Log == nil {
		o.Log = slog.Default()
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return o
}
