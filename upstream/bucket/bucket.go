package bucket

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/opencontainers/go-digest"
	"go.opentelemetry.io/otel/metric"

	"github.com/larder-registry/larder/upstream/link"
	"github.com/larder-registry/larder/upstream/pace"
)

const (
	// Patience is how long the bucket may take until its answer begins. S3 takes 100 to 200 ms (Amazon S3 user guide,
	// "Performance design patterns"); credentials and a new connection come on top at times.
	Patience = time.Second
	// absentFor is how long the bucket is not asked again for what it does not have.
	absentFor = 30 * time.Second
	// failedFor is how long it is not asked for an object after which its body broke off.
	failedFor = time.Minute
	// wrongFor is how long it is not asked for an object that is wrong.
	wrongFor = 24 * time.Hour
	// maxPassed bounds the objects that are not asked for, and maxMembers the memberships that are remembered.
	maxPassed  = 8192
	maxMembers = 8192
	// memberFor is how long a membership is remembered.
	memberFor = time.Hour
)

// Verified is content of the caller's cache.
type Verified interface {
	io.ReaderAt
	io.Closer
	// Size is in bytes.
	Size() int64
}

// Options are the settings of a [Bucket]. Place, AWS, Transport and Open are required.
type Options struct {
	Place Place
	// AWS has the credentials.
	AWS aws.Config
	// Transport makes the connections.
	Transport http.RoundTripper
	// Write puts what upstreams have sent into the bucket, at Rate bytes a second; 0 means as fast as it goes.
	Write bool
	Rate  int64
	// Open opens what a repository of an upstream has in the cache. The error is fs.ErrNotExist if it is not there.
	Open func(host, repository string, d digest.Digest) (Verified, error)
	// Link bounds what the bucket sends. Nil means not at all.
	Link *link.Link
	// Patience is how long the bucket may take until its answer begins, and be silent in its midst. 0 means the
	// defaults.
	Patience time.Duration
	// Log is where trouble is reported. Nil means slog.Default().
	Log *slog.Logger
	// Meter has the instruments. Nil means none.
	Meter metric.MeterProvider
}

// Bucket is a bucket of S3 with content of upstreams. It is safe for concurrent use.
type Bucket struct {
	Options
	store    *store
	names    names
	metrics  *metrics
	silence  time.Duration
	breaker  *pace.Breaker
	keys     atomic.Pointer[[][]byte] // of seals, the one to seal with first; nil means none
	troubles [operations]trouble

	passed  *memory[content, string] // objects that are not asked for, and why
	members *memory[record, *record] // by their ids; nil for what is no member
	notes   *notes
	writer  *writer
}

// New returns a bucket, and asks nothing of it yet. Close ends its metrics.
func New(opts Options) (*Bucket, error) {
	if opts.Log == nil {
		opts.Log = slog.Default()
	}
	b := &Bucket{
		Options: opts,
		store:   connect(opts.AWS, opts.Place, opts.Transport, opts.Rate),
		names:   newNames(opts.Place.Prefix),
		silence: cmp.Or(opts.Patience, silence),
		breaker: pace.NewBreaker(),
		passed:  newMemory[content, string](maxPassed),
		members: newMemory[record, *record](maxMembers),
		notes:   newNotes(),
		writer:  newWriter(),
	}
	b.Patience = cmp.Or(opts.Patience, Patience)
	var err error
	if b.metrics, err = newMetrics(opts.Meter, b); err != nil {
		return nil, fmt.Errorf("set up metrics of the bucket: %w", err)
	}
	return b, nil
}

// Close ends the metrics. No request may run any more.
func (b *Bucket) Close() error { return b.metrics.close() }

// UseKeys has records be sealed with the first of some keys, and read with each of them. With none there are no records.
func (b *Bucket) UseKeys(keys [][]byte) error {
	var seals [][]byte
	for _, key := range keys {
		seal, err := sealKey(key)
		if err != nil {
			return fmt.Errorf("derive a key for the records of the bucket: %w", err)
		}
		seals = append(seals, seal)
	}
	b.keys.Store(&seals)
	b.members.purge()
	b.writer.sealed.purge() // with another key
	b.writer.inUse.purge()
	return nil
}

// sealKeys returns the keys of records. Without any, there are no records.
func (b *Bucket) sealKeys() [][]byte {
	if keys := b.keys.Load(); keys != nil {
		return *keys
	}
	return nil
}

var (
	errSilent = errors.New("it did not answer in time")
	errPassed = errors.New("the bucket is not asked")
	errRest   = fmt.Errorf("%w: it failed a moment ago", errPassed)
)

// ask asks the bucket for an object, and notes whether it answers. The caller calls end when it is done with what
// question has opened.
func (b *Bucket) ask(outer context.Context, question func(ctx context.Context) error) (end context.CancelCauseFunc, err error) {
	admitted, probe := b.breaker.Enter()
	if !admitted {
		b.metrics.asked(resultPassed)
		return nil, errRest
	}
	ctx, cancel := context.WithCancelCause(outer)
	quiet := time.AfterFunc(b.Patience, func() { cancel(errSilent) })
	err = question(ctx)
	inTime := quiet.Stop()
	switch {
	case outer.Err() != nil:
		b.breaker.Abandoned(probe)
	case !inTime:
		err = errors.Join(errSilent, err)
		b.failed(probe, errSilent)
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		b.failed(probe, err)
	default:
		b.answered()
	}
	if err != nil {
		cancel(nil)
		return nil, fmt.Errorf("ask %s: %w", b.Place, err)
	}
	return cancel, nil
}

// failed notes that the bucket could not be read.
func (b *Bucket) failed(probe bool, err error) {
	b.metrics.asked(resultFailed)
	isSilent := errors.Is(err, errSilent) || errors.Is(err, errSlow)
	opened := b.breaker.Failed(probe, isSilent)
	if opened {
		b.Log.Warn("the bucket fails; upstreams are asked without it for a while", "bucket", b.Place.String(), "error", err)
	}
	if opened || probe {
		b.troubles[reading].set(err)
	}
}

// answered notes that it could.
func (b *Bucket) answered() {
	if b.breaker.Succeeded() {
		b.Log.Info("the bucket answers again", "bucket", b.Place.String())
	}
	b.troubles[reading].set(nil)
}

// open opens a part of an object: n bytes from an offset, or all of it if n is 0. known is the size of the whole, or 0.
func (b *Bucket) open(outer context.Context, c content, off, n, known int64) (*body, int64, bool, error) {
	if b.passed.has(c) {
		return nil, 0, false, errPassed
	}
	var inner io.ReadCloser
	var size int64
	var whole bool
	end, err := b.ask(outer, func(ctx context.Context) (err error) {
		inner, size, whole, err = b.store.get(ctx, b.names.content(c), off, n)
		return err
	})
	if errors.Is(err, fs.ErrNotExist) {
		b.passed.add(c, "it is not there", absentFor)
		b.metrics.asked(resultMissing)
	}
	if err != nil {
		if inner != nil {
			inner.Close()
		}
		return nil, 0, false, err
	}
	opened := newBody(outer, inner, end, b.silence)
	opened.took = b.metrics.took
	opened.failed = func(err error) {
		b.passed.add(c, err.Error(), failedFor)
		b.failed(false, err)
	}
	if known > 0 && size != known {
		err := fmt.Errorf("it has %d bytes, and the blob has %d", size, known)
		b.refute(c, err)
		return nil, 0, false, errors.Join(err, opened.Close())
	}
	return opened, size, whole, nil
}

// refute notes that an object is not what its name says.
func (b *Bucket) refute(c content, why error) {
	b.passed.add(c, why.Error(), wrongFor)
	b.metrics.wrong()
	b.Log.Warn("an object of the bucket is wrong and not asked for again; remove it, and find out who may write the bucket",
		"object", b.Place.String()+b.names.content(c)[len(b.names):], "digest", c.digest, "error", why)
}

// Mismatched notes that what came of a blob does not match its digest: an object that has given bytes of it is not asked
// for again.
func (b *Bucket) Mismatched(d digest.Digest) {
	for _, host := range b.notes.end(d).given {
		b.refute(content{host, d}, errors.New("its bytes do not match the digest"))
	}
}

// Filled notes that content is in the cache, and verified: what an upstream has sent of it is put into the bucket.
func (b *Bucket) Filled(d digest.Digest) {
	for _, r := range b.notes.end(d).fetched {
		b.enqueue(r)
	}
}

// operation is what the bucket may fail at.
type operation int

const (
	reading operation = iota
	writing
	operations // how many there are
)

// trouble is why the bucket fails at an operation.
type trouble struct{ err atomic.Pointer[error] }

func (t *trouble) set(err error) {
	if err == nil {
		t.err.Store(nil)
		return
	}
	t.err.Store(&err)
}

func (t *trouble) text() string {
	if err := t.err.Load(); err != nil {
		return (*err).Error()
	}
	return ""
}

// Status is what a node knows of its bucket.
type Status struct {
	Bucket string `json:"bucket"` // in the form of AWS's tools
	// Writes says that the node puts content into the bucket, and Seals that it has a key for records.
	Writes bool `json:"writes"`
	Seals  bool `json:"seals"`
	// Taken and Given are bytes since the start, Put the objects, Queued those that wait for that or are on their way, and Wrong those that were
	// not what their names say.
	Taken  int64 `json:"taken"`
	Given  int64 `json:"given"`
	Put    int64 `json:"put"`
	Queued int64 `json:"queued"`
	Wrong  int64 `json:"wrong"`
	// Reading and Writing are why that fails, or empty.
	Reading string `json:"reading,omitempty"`
	Writing string `json:"writing,omitempty"`
}

// Status returns at once.
func (b *Bucket) Status() Status {
	return Status{
		Bucket: b.Place.String(), Writes: b.Write, Seals: len(b.sealKeys()) > 0,
		Taken: b.metrics.allTaken.Load(), Given: b.metrics.allGiven.Load(), Put: b.metrics.allPut.Load(), Wrong: b.metrics.allWrong.Load(),
		Queued:  b.writer.left.Load(),
		Reading: b.troubles[reading].text(), Writing: b.troubles[writing].text(),
	}
}
