package blobs

import (
	"sync"

	"github.com/opencontainers/go-digest"
)

// reservations are what is reserved for blobs that have not come. Its methods may be called
// from several goroutines at once.
type reservations struct {
	mu  sync.Mutex // guards what follows
	all map[*reserved]bool
}

// reserved is what one Reservation has reserved. reservations.mu guards it.
type reserved struct{ bytes map[digest.Digest]int64 }

func (r *reservations) begin() *reserved {
	r.mu.Lock()
	defer r.mu.Unlock()
	one := &reserved{make(map[digest.Digest]int64)}
	r.all[one] = true
	return one
}

func (r *reservations) add(to *reserved, sizes map[digest.Digest]int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for d, bytes := range sizes {
		to.bytes[d] += bytes
	}
}

// takeFrom takes what one has reserved for a blob.
func (r *reservations) takeFrom(one *reserved, d digest.Digest) (bytes int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	bytes = one.bytes[d]
	delete(one.bytes, d)
	return bytes
}

// take takes what any has reserved for a blob.
func (r *reservations) take(d digest.Digest) (bytes int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for one := range r.all {
		if n, ok := one.bytes[d]; ok {
			delete(one.bytes, d)
			return n
		}
	}
	return 0
}

// end takes all that one has reserved.
func (r *reservations) end(one *reserved) (bytes int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.all, one)
	for _, n := range one.bytes {
		bytes += n
	}
	clear(one.bytes)
	return bytes
}
