package cache

import (
	"cmp"
	"math"
	"slices"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2/simplelru"
	"github.com/opencontainers/go-digest"
)

// recency knows what is in the folder, in the order of its last use: blobs,
// manifests, and partials that no fill works on. It is safe for concurrent use.
//
// Order is all that eviction needs. Using an image moves its index, manifest,
// config and layers to the recent end, in this order, so what an image needs is
// always more recent than the image: the image goes first, and what another one
// shares with it stays.
//
// What lifecycle rules have expired goes before all that. It stands in an order
// of its own as well until it is used.
type recency struct {
	mu     sync.Mutex // guards what follows
	order  *order
	doomed *lru.LRU[digest.Digest, struct{}] // a part of order
	bytes  int64
	loaded bool
	early  *lru.LRU[digest.Digest, struct{}] // used before load
	recent map[digest.Digest]time.Time       // used since the last call of drain

	watches map[*watch]bool // those that did not end
}

// item is something that takes disk space.
type item struct {
	bytes   int64 // as charged, see onDisk
	partial bool
}

// found is an item of which the scan knows when it was last used.
type found struct {
	id   fingerprint
	long digest.Digest // where id does not tell it
	item
	used int64 // in seconds since 1970
	rank rank
}

func foundItem(d digest.Digest, it item, used time.Time) found {
	f := found{id: fingerprintOf(d), item: it, used: used.Unix(), rank: rankBlob}
	if _, ok := short(d); !ok {
		f.long = d
	}
	return f
}

func (f found) digest() digest.Digest {
	if f.long != "" {
		return f.long
	}
	return f.id.digest()
}

// rank breaks ties between what was used in the same second.
type rank uint8

// From first to last: what is evicted earlier.
const (
	rankIndex rank = iota
	rankInner      // an index that another one lists
	rankManifest
	rankBlob
)

func newRecency() *recency {
	return &recency{
		order:  newOrder(),
		doomed: newSequence(),
		early:  newSequence(),
		recent: make(map[digest.Digest]time.Time),

		watches: make(map[*watch]bool),
	}
}

func newSequence() *lru.LRU[digest.Digest, struct{}] {
	s, _ := lru.NewLRU[digest.Digest, struct{}](math.MaxInt, nil) // fails only for a size that is not positive
	return s
}

// load takes what a scan found. What was added meanwhile is more recent.
func (r *recency) load(all []found) {
	slices.SortFunc(all, func(a, b found) int {
		return cmp.Or(
			cmp.Compare(a.used, b.used),
			cmp.Compare(a.rank, b.rank),
			cmp.Compare(b.bytes, a.bytes), // large before small
		)
	})
	r.mu.Lock()
	defer r.mu.Unlock()
	r.order.grow(len(all))
	for _, f := range slices.Backward(all) {
		if _, again := r.order.at[f.id]; again {
			continue
		}
		r.order.addOldest(f.id, f.long, f.item)
		r.bytes += f.bytes
	}
	r.beginLocked()
}

// begin is load where there is nothing to take.
func (r *recency) begin() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.beginLocked()
}

func (r *recency) beginLocked() {
	r.loaded = true
	for _, d := range r.early.Keys() {
		r.order.move(d)
	}
	r.early.Purge()
}

// add takes up something as used just now, and returns how many bytes it takes
// the place of.
func (r *recency) add(d digest.Digest, it item, now time.Time) (replaced int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.noteLocked(d, now)
	return r.addLocked(d, it)
}

func (r *recency) addLocked(d digest.Digest, it item) (replaced int64) {
	old, _ := r.removeLocked(d)
	r.order.add(d, it)
	r.bytes += it.bytes
	return old.bytes
}

func (r *recency) removeLocked(d digest.Digest) (it item, ok bool) {
	if it, ok = r.order.remove(d); ok {
		r.doomed.Remove(d)
		r.bytes -= it.bytes
	}
	return it, ok
}

// remove forgets something, and returns what it was.
func (r *recency) remove(d digest.Digest) (it item, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.removeLocked(d)
}

// first returns what goes first: what has expired, else what was not used for
// longest.
func (r *recency) first() (d digest.Digest, expired, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if d, _, ok = r.doomed.GetOldest(); ok {
		return d, true, true
	}
	d, ok = r.order.oldest()
	return d, false, ok
}

// watch is what was used since it began. It is for who reads the index, and acts
// upon what it said then.
type watch struct {
	seen map[digest.Digest]bool // recency.mu guards it
}

// watch begins a watch, which unwatch ends.
func (r *recency) watch() *watch {
	w := &watch{seen: make(map[digest.Digest]bool)}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.watches[w] = true
	return w
}

func (r *recency) unwatch(w *watch) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.watches, w)
}

func (r *recency) seen(w *watch, d digest.Digest) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return w.seen[d]
}

// doom has these, and no others, go before all others, in this order, until they
// are used. What was used since w began is passed over.
func (r *recency) doom(digests []digest.Digest, w *watch) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.doomed.Purge()
	for _, d := range digests {
		if _, here := r.order.look(d); here && !w.seen[d] {
			r.doomed.Add(d, struct{}{})
		}
	}
}

func (r *recency) len() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.order.len()
}

// use makes something the most recent.
func (r *recency) use(d digest.Digest, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.loaded {
		r.early.Add(d, struct{}{})
	}
	r.doomed.Remove(d)
	if r.order.move(d) || !r.loaded {
		r.noteLocked(d, now)
	}
}

func (r *recency) noteLocked(d digest.Digest, now time.Time) {
	r.recent[d] = now
	for w := range r.watches {
		w.seen[d] = true
	}
}

// isRecent reports whether something was used less than a tick ago, since the
// last call of drain, and since it was doomed. A machine that was asleep may be
// late for that call.
func (r *recency) isRecent(d digest.Digest, now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	at, ok := r.recent[d]
	return ok && now.Sub(at) < tick && !r.doomed.Contains(d)
}

// drain returns what was used since the last call, and when.
func (r *recency) drain() map[digest.Digest]time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	recent := r.recent
	r.recent = make(map[digest.Digest]time.Time)
	for d := range recent {
		if _, here := r.order.look(d); !here {
			delete(recent, d)
		}
	}
	return recent
}

// total is how many bytes everything takes.
func (r *recency) total() int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.bytes
}
