package bucket

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/upstream/pace"
)

const (
	// maxQueue bounds what waits to be put, and workers what is put at once.
	maxQueue = 4096
	workers  = 4
	// putFor is how long it is remembered what the bucket has: half of a day, the shortest time after which a bucket's
	// lifecycle rule removes objects, so that what has expired is put again.
	putFor = 12 * time.Hour
	// tagFor is how often a tag is put that stays where it is.
	tagFor = time.Hour
	// maxPut bounds the objects that are remembered.
	maxPut = 65536
	// maxInUse bounds the images in use that are remembered.
	maxInUse = 8192
	// maxTries is how often an object is tried to be put, with pauses between firstPause and lastPause.
	maxTries   = 4
	firstPause = time.Second
	lastPause  = 30 * time.Second
	// smallTimeout bounds a request for something small.
	smallTimeout = 15 * time.Second
)

// writer is what is put into the bucket.
type writer struct {
	queue   chan record
	breaker *pace.Breaker
	put     *memory[content, struct{}]     // what the bucket has
	sealed  *memory[record, digest.Digest] // by the ids of records that it has, and what they say
	inUse   *memory[record, struct{}]      // images of which all parts were looked at lately, by their ids
	asked   sync.Map                       // ids of records that are in the queue
	left    atomic.Int64                   // how many are in the queue or being put
}

func newWriter() *writer {
	return &writer{
		queue:   make(chan record, maxQueue),
		breaker: pace.NewBreaker(),
		put:     newMemory[content, struct{}](maxPut),
		sealed:  newMemory[record, digest.Digest](maxPut),
		inUse:   newMemory[record, struct{}](maxInUse),
	}
}

// enqueue has something be put by Run. If too much waits, it is left out.
func (b *Bucket) enqueue(r record) {
	keyed := len(b.sealKeys()) > 0
	if !b.Write || r.Tag != "" && !keyed || b.hasAll(r, keyed) {
		return
	}
	if _, waits := b.writer.asked.LoadOrStore(r.id(), nil); waits {
		return
	}
	b.writer.left.Add(1)
	select {
	case b.writer.queue <- r:
	default:
		b.writer.left.Add(-1)
		b.writer.asked.Delete(r.id())
		b.metrics.put(putDropped)
	}
}

// hasAll reports whether the bucket is known to have all that belongs to a record.
func (b *Bucket) hasAll(r record, keyed bool) bool {
	said, isSealed := b.writer.sealed.get(r.id())
	if r.Tag != "" {
		return isSealed && said == r.Digest
	}
	return b.writer.put.has(content{r.Upstream, r.Digest}) && (isSealed || !keyed)
}

// Run puts into the bucket what upstreams have sent, until ctx ends. At first it finds out whether the store heeds
// conditions. It is called once.
func (b *Bucket) Run(ctx context.Context) {
	if !b.Write {
		return
	}
	b.tryConditions(ctx)
	var running sync.WaitGroup
	for range workers {
		running.Go(func() {
			for {
				select {
				case r := <-b.writer.queue:
					b.writer.asked.Delete(r.id())
					b.deal(ctx, r)
					b.writer.left.Add(-1)
				case <-ctx.Done():
					return
				}
			}
		})
	}
	running.Wait()
}

// tryConditions finds out whether the store heeds conditions, and says so if it does not.
func (b *Bucket) tryConditions(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, smallTimeout)
	defer cancel()
	heeded, err := b.store.heedsConditions(ctx, b.names.probe())
	switch {
	case ctx.Err() != nil && errors.Is(ctx.Err(), context.Canceled):
	case err != nil:
		b.troubles[writing].set(err)
		b.Log.Warn("the bucket could not be tried; what upstreams send is put there as soon as it can be", "bucket", b.Place.String(), "error", err)
	case !heeded:
		b.Log.Warn("this store ignores If-None-Match: whoever may write the bucket may replace objects, and nodes may put one twice",
			"bucket", b.Place.String())
	}
}

// deal puts something, and tries again if the bucket fails.
func (b *Bucket) deal(ctx context.Context, r record) {
	pauses := pace.NewBackoff(firstPause, lastPause)
	for try := 1; ; try++ {
		probe, ok := b.admitted(ctx)
		if !ok {
			return
		}
		result, err := b.putAll(ctx, r)
		switch {
		case ctx.Err() != nil:
			b.writer.breaker.Abandoned(probe)
			return
		case err == nil:
			b.writer.breaker.Succeeded()
			b.troubles[writing].set(nil)
			b.metrics.put(result)
			return
		case errors.Is(err, errLocal):
			b.writer.breaker.Abandoned(probe)
			b.metrics.put(putDropped)
			return
		}
		b.troubles[writing].set(err)
		if b.writer.breaker.Failed(probe, false) {
			b.Log.Warn("the bucket takes nothing", "bucket", b.Place.String(), "error", err)
		}
		if try == maxTries {
			b.metrics.put(putFailed)
			b.Log.Info("something is not put into the bucket", "upstream", r.Upstream, "repository", r.Repository, "tag", r.Tag, "digest", r.Digest, "error", err)
			return
		}
		if !wait(ctx, pauses.NextBackOff()) {
			return
		}
	}
}

// admitted waits until the bucket may be written. It returns false when ctx ends.
func (b *Bucket) admitted(ctx context.Context) (probe, ok bool) {
	for {
		if admitted, probe := b.writer.breaker.Enter(); admitted {
			return probe, true
		}
		if !wait(ctx, firstPause) {
			return false, false
		}
	}
}

func wait(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// errLocal is the error for content that is not in the cache any more.
var errLocal = errors.New("it is not in the cache any more")

// putAll puts the content of a record if the bucket does not have it, and the record if there is a key.
func (b *Bucket) putAll(ctx context.Context, r record) (result string, err error) {
	result = putThere
	if r.Tag == "" {
		if result, err = b.putContent(ctx, &r); err != nil {
			return result, err
		}
	}
	return result, b.putRecord(ctx, r)
}

func (b *Bucket) putContent(ctx context.Context, r *record) (string, error) {
	verified, err := b.Open(r.Upstream, r.Repository, r.Digest)
	if err != nil {
		return "", fmt.Errorf("%w: %w", errLocal, err)
	}
	defer verified.Close()
	r.Size = verified.Size()
	c := content{r.Upstream, r.Digest}
	if b.writer.put.has(c) {
		return putThere, nil
	}
	result, err := b.putMissing(ctx, c, verified)
	if err != nil {
		return "", fmt.Errorf("put %s into %s: %w", r.Digest, b.Place, err)
	}
	b.writer.put.add(c, struct{}{}, putFor)
	b.passed.take(c) // it is there now
	return result, nil
}

// putMissing puts content that the bucket does not have.
func (b *Bucket) putMissing(ctx context.Context, c content, verified Verified) (string, error) {
	name := b.names.content(c)
	size, err := b.sizeOf(ctx, name)
	switch {
	case err == nil && size != verified.Size():
		b.refute(c, fmt.Errorf("it has %d bytes, and the blob has %d", size, verified.Size()))
		return putThere, nil
	case err == nil:
		return putThere, nil
	case !errors.Is(err, fs.ErrNotExist):
		return "", err
	}
	err = b.store.putContent(ctx, name, c.digest, verified, verified.Size())
	if errors.Is(err, errConflict) { // another node puts it, and may fail
		err = b.store.putContent(ctx, name, c.digest, verified, verified.Size())
	}
	switch {
	case errors.Is(err, errThere):
		return putThere, nil
	case err != nil:
		return "", err
	}
	b.metrics.gave(verified.Size())
	return putDone, nil
}

func (b *Bucket) sizeOf(ctx context.Context, name string) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, smallTimeout)
	defer cancel()
	return b.store.size(ctx, name)
}

// putRecord seals a record and puts it, unless the bucket has one that says the same. There may be another one, which
// nobody uses: it is replaced.
func (b *Bucket) putRecord(ctx context.Context, r record) error {
	keys := b.sealKeys()
	if len(keys) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, smallTimeout)
	defer cancel()
	name := b.names.record(r)
	if r.Tag == "" {
		if said, ok := b.writer.sealed.get(r.id()); ok && said == r.Digest {
			return nil
		}
		before, err := b.store.read(ctx, name, maxRecord)
		if err == nil {
			if _, err := openRecord(before, keys[:1], r); err == nil {
				b.writer.sealed.add(r.id(), r.Digest, putFor)
				return nil
			}
		}
	}
	sealed, err := r.seal(keys[0])
	if err != nil {
		return err
	}
	if err := b.store.write(ctx, name, sealed); err != nil {
		return fmt.Errorf("put %s into %s: %w", name, b.Place, err)
	}
	keep := putFor
	if r.Tag != "" {
		keep = tagFor
	}
	b.writer.sealed.add(r.id(), r.Digest, keep)
	return nil
}
