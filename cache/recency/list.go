package recency

import (
	"cmp"
	"math"
	"slices"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2/simplelru"
	"github.com/opencontainers/go-digest"
)

// List holds the items in the cache folder in the order of their last use: blobs,
// manifests, and the partial downloads that no fill works on. Its methods may be called
// from several goroutines at once.
type List struct {
	interval time.Duration // see New

	mu      sync.Mutex // guards what follows
	order   *order
	expired *lru.LRU[digest.Digest, struct{}] // part of order
	bytes   int64                             // of all items
	loaded  bool
	early   *lru.LRU[digest.Digest, struct{}] // used before Load
	uses    map[digest.Digest]time.Time       // since the last call of TakeUses
	watches map[*Watch]bool                   // those that have not ended
}

// Item is something that takes disk space.
type Item struct {
	Bytes   int64 // that it counts for
	Partial bool  // it is a partial download
}

// New returns an empty list. interval is how often TakeUses is called: within it a second
// use of the same item needs no attention, see [List.UsedLately].
func New(interval time.Duration) *List {
	return &List{
		interval: interval,
		order:    newOrder(),
		expired:  newSequence(),
		early:    newSequence(),
		uses:     make(map[digest.Digest]time.Time),
		watches:  make(map[*Watch]bool),
	}
}

func newSequence() *lru.LRU[digest.Digest, struct{}] {
	s, _ := lru.NewLRU[digest.Digest, struct{}](math.MaxInt, nil) // fails only for a size that is not positive
	return s
}

// Load adds what a scan of the folder found. Items that were added meanwhile are more
// recent.
func (l *List) Load(all []Found) {
	slices.SortFunc(all, func(a, b Found) int {
		return cmp.Or(
			cmp.Compare(a.Used, b.Used),
			cmp.Compare(a.Rank, b.Rank),
			cmp.Compare(b.Bytes, a.Bytes), // large before small
		)
	})
	l.mu.Lock()
	defer l.mu.Unlock()
	l.order.grow(len(all))
	for _, f := range slices.Backward(all) {
		if _, again := l.order.at[f.id]; again {
			continue
		}
		l.order.addOldest(f.id, f.long, f.Item)
		l.bytes += f.Bytes
	}
	l.loaded = true
	for _, d := range l.early.Keys() {
		l.order.moveToRecent(d)
	}
	l.early.Purge()
}

// Add adds an item as used just now, and returns the bytes of the item that it replaces.
func (l *List) Add(d digest.Digest, it Item, now time.Time) (replaced int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.noteLocked(d, now)
	old, _ := l.removeLocked(d)
	l.order.add(d, it)
	l.bytes += it.Bytes
	return old.Bytes
}

// Remove removes an item and returns it. ok is false if it is not in the list.
func (l *List) Remove(d digest.Digest) (it Item, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.removeLocked(d)
}

func (l *List) removeLocked(d digest.Digest) (it Item, ok bool) {
	if it, ok = l.order.remove(d); ok {
		l.expired.Remove(d)
		l.bytes -= it.Bytes
	}
	return it, ok
}

// Get returns an item without using it.
func (l *List) Get(d digest.Digest) (it Item, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.order.get(d)
}

// First returns the item to evict first: one that has expired, else the least recently
// used one.
func (l *List) First() (d digest.Digest, expired, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if d, _, ok = l.expired.GetOldest(); ok {
		return d, true, true
	}
	d, ok = l.order.oldest()
	return d, false, ok
}

// Use makes an item the most recent one. Before Load it remembers the use of an item that
// Load may bring.
func (l *List) Use(d digest.Digest, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.loaded {
		l.early.Add(d, struct{}{})
	}
	l.expired.Remove(d)
	if l.order.moveToRecent(d) || !l.loaded {
		l.noteLocked(d, now)
	}
}

func (l *List) noteLocked(d digest.Digest, now time.Time) {
	l.uses[d] = now
	for w := range l.watches {
		w.used[d] = true
	}
}

// Skip moves an item that must not be evicted to the recent end, so that eviction finds
// others first. It does not count as a use.
func (l *List) Skip(d digest.Digest) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.order.moveToRecent(d)
	l.expired.Remove(d)
}

// UsedLately reports whether an item was used less than an interval ago, since the last
// call of TakeUses, and since it expired. After the machine was asleep that call may be
// late, so the time counts too.
func (l *List) UsedLately(d digest.Digest, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	at, ok := l.uses[d]
	return ok && now.Sub(at) < l.interval && !l.expired.Contains(d)
}

// UsedSince returns when an item was used, if that was since the last call of TakeUses.
func (l *List) UsedSince(d digest.Digest) (at time.Time, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	at, ok = l.uses[d]
	return at, ok
}

// TakeUses returns when items were used since its last call. Items that are no longer in
// the list are left out.
func (l *List) TakeUses() map[digest.Digest]time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	uses := l.uses
	l.uses = make(map[digest.Digest]time.Time)
	for d := range uses {
		if _, ok := l.order.get(d); !ok {
			delete(uses, d)
		}
	}
	return uses
}

// Len is how many items are in the list.
func (l *List) Len() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.order.len()
}

// Digests returns all items in the order of their last use, the least recently used first.
// It copies the list, which may have a million items.
func (l *List) Digests() []digest.Digest {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.order.digests()
}

// Bytes is the sum over all items.
func (l *List) Bytes() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.bytes
}

// Without counts the items that are not among these, and sums up their bytes.
func (l *List) Without(digests func(yield func(digest.Digest) bool)) (bytes int64, items int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	bytes, items = l.bytes, l.order.len()
	for d := range digests {
		if it, ok := l.order.get(d); ok {
			bytes -= it.Bytes
			items--
		}
	}
	return bytes, items
}

// Watch collects the items that are used while it lasts. It is for a caller that reads
// records and acts upon them later: what was used meanwhile may be needed again.
type Watch struct {
	used map[digest.Digest]bool // List.mu guards it
}

// Watch begins a watch. The caller ends it with EndWatch.
func (l *List) Watch() *Watch {
	w := &Watch{used: make(map[digest.Digest]bool)}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.watches[w] = true
	return w
}

// EndWatch ends a watch.
func (l *List) EndWatch(w *Watch) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.watches, w)
}

// UsedDuring reports whether an item was used since the watch began.
func (l *List) UsedDuring(w *Watch, d digest.Digest) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return w.used[d]
}

// Expire makes these items, and no others, the first to be evicted, in this order, until
// they are used. Items that were used since w began are left out.
func (l *List) Expire(digests []digest.Digest, w *Watch) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.expired.Purge()
	for _, d := range digests {
		if _, ok := l.order.get(d); ok && !w.used[d] {
			l.expired.Add(d, struct{}{})
		}
	}
}
