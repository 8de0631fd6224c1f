package cache

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"

	"github.com/opencontainers/go-digest"
)

// order is items in a list, from the longest unused to the most recent. All that
// can be done with it takes the same time however many there are. It exists because
// a million items of simplelru, with digests for keys, are some million small
// objects of 280 bytes together; here they are 110 to 140 bytes each, in two large
// ones.
type order struct {
	at    map[fingerprint]uint32 // where in slots
	slots []slot                 // the first one is both ends of the list, which is a ring
	free  uint32                 // the first of the slots that are not used, linked by next; 0 for none
	long  map[fingerprint]digest.Digest
}

// slot is an item and its place. Links are indexes, which the garbage collector
// need not follow.
type slot struct {
	id         fingerprint
	bytes      int64
	prev, next uint32
	partial    bool
}

// fingerprint is a SHA-256 digest. That of another kind is the SHA-256 of its
// text, which order.long has.
type fingerprint [sha256.Size]byte

func fingerprintOf(d digest.Digest) fingerprint {
	if f, ok := short(d); ok {
		return f
	}
	return sha256.Sum256([]byte(d))
}

// short returns the fingerprint of a digest that can be told from it.
func short(d digest.Digest) (f fingerprint, ok bool) {
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

// grow makes place for n more items at once.
func (o *order) grow(n int) {
	if len(o.at) == 0 {
		o.at = make(map[fingerprint]uint32, n)
	}
	o.slots = slices.Grow(o.slots, n)
}

func (o *order) len() int { return len(o.at) }

func (o *order) look(d digest.Digest) (it item, ok bool) {
	i, ok := o.at[fingerprintOf(d)]
	if !ok {
		return item{}, false
	}
	return o.slots[i].item(), true
}

func (s *slot) item() item { return item{bytes: s.bytes, partial: s.partial} }

// add puts an item that is not there at the recent end.
func (o *order) add(d digest.Digest, it item) {
	id, ok := short(d)
	if !ok {
		id = fingerprintOf(d)
		o.long[id] = d
	}
	o.link(o.insert(id, it), o.slots[0].prev)
}

// addOldest puts an item that is not there at the other end. long is its digest,
// where the fingerprint does not tell it.
func (o *order) addOldest(id fingerprint, long digest.Digest, it item) {
	if long != "" {
		o.long[id] = long
	}
	o.link(o.insert(id, it), 0)
}

func (o *order) insert(id fingerprint, it item) uint32 {
	i := o.free
	if i == 0 {
		i = uint32(len(o.slots))
		o.slots = append(o.slots, slot{})
	} else {
		o.free = o.slots[i].next
	}
	o.slots[i] = slot{id: id, bytes: it.bytes, partial: it.partial}
	o.at[id] = i
	return i
}

// link puts an item behind another one.
func (o *order) link(i, prev uint32) {
	next := o.slots[prev].next
	o.slots[i].prev, o.slots[i].next = prev, next
	o.slots[prev].next, o.slots[next].prev = i, i
}

func (o *order) unlink(i uint32) {
	s := &o.slots[i]
	o.slots[s.prev].next, o.slots[s.next].prev = s.next, s.prev
}

// move puts an item, if it is there, at the recent end.
func (o *order) move(d digest.Digest) bool {
	i, ok := o.at[fingerprintOf(d)]
	if ok {
		o.unlink(i)
		o.link(i, o.slots[0].prev)
	}
	return ok
}

func (o *order) remove(d digest.Digest) (it item, ok bool) {
	id := fingerprintOf(d)
	i, ok := o.at[id]
	if !ok {
		return item{}, false
	}
	it = o.slots[i].item()
	o.unlink(i)
	o.slots[i] = slot{next: o.free}
	o.free = i
	delete(o.at, id)
	delete(o.long, id)
	return it, true
}

// oldest returns what was not used for longest.
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
