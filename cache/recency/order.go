package recency

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"

	"github.com/opencontainers/go-digest"
)

// order is items in a list, from the least to the most recently used. Each of its methods
// takes the same time however many items there are. A million items of simplelru with
// digests as keys are some million small objects of 280 bytes each; here they are 110 to
// 140 bytes each, in two large objects.
type order struct {
	at    map[fingerprint]uint32 // where in slots
	slots []slot                 // the list is a ring; the first slot is both of its ends
	free  uint32                 // the first unused slot, linked by next; 0 for none
	long  map[fingerprint]digest.Digest
}

// slot is an item and its place in the list. Links are indexes, which the garbage
// collector need not follow.
type slot struct {
	id         fingerprint
	bytes      int64
	prev, next uint32
	partial    bool
}

// fingerprint is a SHA-256 digest. For a digest of another algorithm it is the SHA-256 of
// its text, and order.long has the digest.
type fingerprint [sha256.Size]byte

func fingerprintOf(d digest.Digest) fingerprint {
	if f, ok := sha256Of(d); ok {
		return f
	}
	return sha256.Sum256([]byte(d))
}

// sha256Of returns the bytes of a SHA-256 digest. ok is false for any other.
func sha256Of(d digest.Digest) (f fingerprint, ok bool) {
	const prefix = "sha256:"
	if len(d) != len(prefix)+2*len(f) || d[:len(prefix)] != prefix {
		return f, false
	}
	_, err := hex.Decode(f[:], []byte(d[len(prefix):]))
	return f, err == nil
}

func (f fingerprint) digest() digest.Digest {
	return digest.NewDigestFromBytes(digest.SHA256, f[:])
}

func newOrder() *order {
	return &order{at: make(map[fingerprint]uint32), slots: make([]slot, 1), long: make(map[fingerprint]digest.Digest)}
}

// grow allocates for n more items at once.
func (o *order) grow(n int) {
	if len(o.at) == 0 {
		o.at = make(map[fingerprint]uint32, n)
	}
	o.slots = slices.Grow(o.slots, n)
}

func (o *order) len() int { return len(o.at) }

func (o *order) get(d digest.Digest) (it Item, ok bool) {
	i, ok := o.at[fingerprintOf(d)]
	if !ok {
		return Item{}, false
	}
	return o.slots[i].item(), true
}

func (s *slot) item() Item { return Item{Bytes: s.bytes, Partial: s.partial} }

// add puts an item that is not in the list at its recent end.
func (o *order) add(d digest.Digest, it Item) {
	id, ok := sha256Of(d)
	if !ok {
		id = fingerprintOf(d)
		o.long[id] = d
	}
	o.link(o.insert(id, it), o.slots[0].prev)
}

// addOldest puts an item that is not in the list at its other end. long is its digest, if
// the fingerprint does not tell it.
func (o *order) addOldest(id fingerprint, long digest.Digest, it Item) {
	if long != "" {
		o.long[id] = long
	}
	o.link(o.insert(id, it), 0)
}

func (o *order) insert(id fingerprint, it Item) uint32 {
	i := o.free
	if i == 0 {
		i = uint32(len(o.slots))
		o.slots = append(o.slots, slot{})
	} else {
		o.free = o.slots[i].next
	}
	o.slots[i] = slot{id: id, bytes: it.Bytes, partial: it.Partial}
	o.at[id] = i
	return i
}

// link puts a slot after another one.
func (o *order) link(i, prev uint32) {
	next := o.slots[prev].next
	o.slots[i].prev, o.slots[i].next = prev, next
	o.slots[prev].next, o.slots[next].prev = i, i
}

func (o *order) unlink(i uint32) {
	s := &o.slots[i]
	o.slots[s.prev].next, o.slots[s.next].prev = s.next, s.prev
}

// moveToRecent moves an item to the recent end, and reports whether it is in the list.
func (o *order) moveToRecent(d digest.Digest) bool {
	i, ok := o.at[fingerprintOf(d)]
	if ok {
		o.unlink(i)
		o.link(i, o.slots[0].prev)
	}
	return ok
}

func (o *order) remove(d digest.Digest) (it Item, ok bool) {
	id := fingerprintOf(d)
	i, ok := o.at[id]
	if !ok {
		return Item{}, false
	}
	it = o.slots[i].item()
	o.unlink(i)
	o.slots[i] = slot{next: o.free}
	o.free = i
	delete(o.at, id)
	delete(o.long, id)
	return it, true
}

// oldest returns the least recently used item.
func (o *order) oldest() (d digest.Digest, ok bool) {
	if i := o.slots[0].next; i != 0 {
		return o.digest(i), true
	}
	return "", false
}

func (o *order) digest(i uint32) digest.Digest {
	id := o.slots[i].id
	if d, ok := o.long[id]; ok {
		return d
	}
	return id.digest()
}

func (o *order) digests() []digest.Digest {
	all := make([]digest.Digest, 0, o.len())
	for i := o.slots[0].next; i != 0; i = o.slots[i].next {
		all = append(all, o.digest(i))
	}
	return all
}
