package cache

import (
	"cmp"
	"context"
	"log/slog"
	"time"

	"github.com/opencontainers/go-digest"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"

	"github.com/larder-registry/larder/cache/disk"
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
	// NeedsProof reports whether a repository of an upstream may have what is in the cache only
	// where its own storage is known to have it, though another repository of the upstream has
	// it too: not all repositories of the upstream are allowed. Nil means that no upstream is
	// such. It is called while clients wait, so it must not block.
	NeedsProof func(upstream string) bool
	// OnlyProven reports whether a record of an earlier release, which did not tell what was
	// proven, is no proof for the repositories of an upstream. It is for upstreams of NeedsProof.
	// Nil means that such a record is a proof.
	OnlyProven func(upstream string) bool
	// Canonical returns the one name of an upstream that earlier releases called by several:
	// their records get it when the store is opened. Nil means that there are no such names.
	Canonical func(upstream string) string
	// Keep says which images are brought whole and followed by the caller, with
	// [Store.SetTag]: they are pinned as those of Pin are, for the platforms that come. Nil
	// means none. It must not call the store.
	Keep func(image string) bool
	// KeptDigests lists the images of Keep that are named by a digest: they are pinned before
	// anything is evicted, as those that a tag in the cache names are. Nil means none. It must
	// not call the store.
	KeptDigests func() []RepoDigest
	// Mismatched is told which blob did not match its digest, or its size, when it came, once its bytes are dropped. It
	// must not call the store. Nil means that nobody wants to know.
	Mismatched func(d digest.Digest)
	// Filled is told which blob or manifest has come from a source, is verified and on disk. It must not call the store.
	// Nil means that nobody wants to know.
	Filled func(d digest.Digest)
	// KeepAll evicts nothing to free space: MaxSize and MinFree bound what may be pinned, and
	// nothing else. It is for a command that has the folder while no daemon runs, and may not
	// know the bounds of the daemon.
	KeepAll bool
	// IndexWorkers is how many goroutines merge the tables of the index. 0 means two. Negative
	// means none, for tests of simulated days: each of them wakes up 20 times a second.
	IndexWorkers int
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
	fills      int        // bounds the fills that run at once; 0 means 256
	steps      disk.Steps // may fail
	maxRecords int64      // bounds the records of the index, in bytes; 0 means a part of MaxSize
}

func (o Options) withDefaults() Options {
	o.LowWater = cmp.Or(o.LowWater, 0.9)
	o.fills = cmp.Or(o.fills, 256)
	o.ScrubEvery = cmp.Or(o.ScrubEvery, 7*24*time.Hour)
	o.IndexWorkers = max(cmp.Or(o.IndexWorkers, 2), 0)
	o.ScrubRate = cmp.Or(o.ScrubRate, 20_000_000)
	if o.Log == nil {
		o.Log = slog.Default()
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Filled == nil {
		o.Filled = func(digest.Digest) {}
	}
	if o.Mismatched == nil {
		o.Mismatched = func(digest.Digest) {}
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
	// StaleIfGone is how long a tag is still served after the upstream has said that it has no
	// such tag. A pinned tag is served without end, in both cases.
	StaleIfGone time.Duration
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

	// Kept, if set, reports whether a tag is served as it is recorded, without asking: the
	// caller moves it with [Store.SetTag]. It is called while clients wait, so it must not
	// block.
	Kept func(repo Repository, tag string) bool

	// Fixed, if set, reports whether a tag never moves: it is never asked about again. It is
	// called while clients wait, so it must not block.
	Fixed func(repo Repository, tag string) bool

	// Cooldown, if set, tells how long a tag that has moved is not followed. The digest before
	// is served meanwhile, and kept as a pin keeps it. A pull by digest is never delayed. It is
	// called when a tag was confirmed, and must not call the store.
	Cooldown func(repo Repository, tag string) Cooldown
	// Pushed, if set, asks when an image was pushed. False means that it is not known. A cooldown
	// counts from then if that was before the first sight. It is called once when a tag has moved,
	// while clients wait.
	Pushed func(ctx context.Context, repo Repository, d digest.Digest) (time.Time, bool)

	// Offline, if set, reports whether an upstream must not be asked, and when it last was so.
	// Its tags do not age meanwhile: while it is offline they are all fresh, and StaleIfError
	// counts from last at the earliest. It is called while clients wait, so it must not block.
	Offline func(upstream string) (now bool, last time.Time)
}

// Cooldown says how long a tag that has moved is not followed. The zero value follows it at
// once.
type Cooldown struct {
	// For is how long after its first sight a new digest is followed, if the tag still names
	// it then. Digests that were replaced meanwhile are skipped.
	For time.Duration
	// First applies this to the first digest of a tag too: the tag is refused until then.
	// Otherwise a tag without an earlier digest stands for the current one.
	First bool
}
