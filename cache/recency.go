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
// What a lifecycle policy has expired goes before all that. It stands in an
// order of its own until it is used.
type recency struct {
	mu     sync.Mutex // guards what follows
	order  *lru.LRU[digest.Digest, item]
	doomed *lru.LRU[digest.Digest, item] // has nothing that order has
	bytes  int64
	loaded bool
	early  []digest.Digest             // used before load, each once
	recent map[digest.Digest]time.Time // used since the last call of drain

	watched map[digest.Digest]bool // used since the call of watch; nil where nobody watches
}

// item is something that takes disk space.
type item struct {
	bytes   int64 // as charged, see onDisk
	partial bool
}

// found is an item of which the scan knows when it was last used.
type found struct {
	digest digest.Digest
	item
	used time.Time
	rank rank
}

// rank breaks ties between what was used in the same second.
type rank int

// From first to last: what is evicted earlier.
const (
	rankIndex rank = iota
	rankManifest
	rankBlob
)

func newRecency() *recency {
	return &recency{order: newOrder(), doomed: newOrder(), recent: make(map[digest.Digest]time.Time)}
}

func newOrder() *lru.LRU[digest.Digest, item] {
	order, _ := lru.NewLRU[digest.Digest, item](math.MaxInt, nil) // fails only for a size that is not positive
	return order
}

// load takes what a scan found. What was added meanwhile is more recent.
func (r *recency) load(all []found) {
	slices.SortFunc(all, func(a, b found) int {
		return cmp.Or(
			cmp.Compare(a.used.Unix(), b.used.Unix()),
			cmp.Compare(a.rank, b.rank),
			cmp.Compare(b.bytes, a.bytes), // large before small
		)
	})
	fresh := newRecency()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, f := range all {
		if !r.order.Contains(f.digest) {
			fresh.addLocked(f.digest, f.item)
		}
	}
	for _, d := range r.order.Keys() {
		it, _ := r.order.Peek(d)
		fresh.addLocked(d, it)
	}
	r.order, r.bytes, r.loaded = fresh.order, fresh.bytes, true
	for _, d := range r.early {
		r.order.Get(d)
	}
	r.early = nil
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
	r.order.Add(d, it)
	r.bytes += it.bytes
	return old.bytes
}

func (r *recency) removeLocked(d digest.Digest) (it item, ok bool) {
	for _, order := range []*lru.LRU[digest.Digest, item]{r.order, r.doomed} {
		if it, ok = order.Peek(d); ok {
			order.Remove(d)
			r.bytes -= it.bytes
			return it, true
		}
	}
	return item{}, false
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
	d, _, ok = r.order.GetOldest()
	return d, false, ok
}

// doom has these go before all others, in this order, until they are used. What
// was doomed before and is not among them counts as just used.
func (r *recency) doom(digests []digest.Digest) {
	doomed := newOrder()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, d := range digests {
		if it, ok := r.removeLocked(d); ok {
			doomed.Add(d, it)
			r.bytes += it.bytes
		}
	}
	for _, d := range r.doomed.Keys() {
		it, _ := r.doomed.Peek(d)
		r.order.Add(d, it)
	}
	r.doomed = doomed
}

func (r *recency) len() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.order.Len() + r.doomed.Len()
}

// use makes something the most recent.
func (r *recency) use(d digest.Digest, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, again := r.recent[d]; !r.loaded && !again {
		r.early = append(r.early, d)
	}
	_, here := r.order.Get(d)
	if it, doomed := r.doomed.Peek(d); doomed {
		r.addLocked(d, it)
		here = true
	}
	if here || !r.loaded {
		r.noteLocked(d, now)
	}
}

func (r *recency) noteLocked(d digest.Digest, now time.Time) {
	r.recent[d] = now
	if r.watched != nil {
		r.watched[d] = true
	}
}

// isRecent reports whether something was used since the last call of drain, and
// since it was doomed.
func (r *recency) isRecent(d digest.Digest) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, ok := r.recent[d]
	return ok && !r.doomed.Contains(d)
}

// drain returns what was used since the last call, and when.
func (r *recency) drain() map[digest.Digest]time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	recent := r.recent
	r.recent = make(map[digest.Digest]time.Time)
	for d := range recent {
		if !r.order.Contains(d) { // what is doomed was not used
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
