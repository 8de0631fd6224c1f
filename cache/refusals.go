package cache

import (
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// memoryRefusals bounds what refusals take, in bytes. A usual one takes 1 to 2 KiB, and one
// with AWS's explanation up to 8: clients may ask for any number of things that do not exist.
const memoryRefusals = 4 << 20

// refusals remembers the latest refusals of upstreams. It is safe for concurrent use.
type refusals struct {
	mu    sync.Mutex // guards what follows
	list  *simplelru.LRU[string, refusal]
	bytes int
}

// refusal is an upstream's answer that something does not exist or is not allowed.
type refusal struct {
	err   error
	until time.Time
	bytes int
}

func newRefusals() *refusals {
	r := new(refusals)
	list, err := simplelru.NewLRU(memoryRecords, func(_ string, gone refusal) { r.bytes -= gone.bytes })
	if err != nil {
		panic(err) // only for a size that is not positive
	}
	r.list = list
	return r
}

// add remembers a refusal until a given time, and forgets as many others as it needs.
func (r *refusals) add(key string, err error, until time.Time) {
	bytes := len(key) + refusalOverhead + sizeOf(err)
	if bytes > memoryRefusals {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.list.Remove(key)
	r.list.Add(key, refusal{err, until, bytes})
	for r.bytes += bytes; r.bytes > memoryRefusals; {
		r.list.RemoveOldest()
	}
}

// get returns a refusal that is still remembered, or nil.
func (r *refusals) get(key string, now time.Time) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch known, ok := r.list.Get(key); {
	case !ok:
		return nil
	case now.Before(known.until):
		return known.err
	}
	r.list.Remove(key)
	return nil
}

// refusalOverhead is what a refusal takes in the list beside its key and its error, in bytes.
const refusalOverhead = 256

// sizeOf estimates what an error takes in memory, in bytes: each error of its tree has a text
// of its own, and some fields.
func sizeOf(err error) int {
	if err == nil {
		return 0
	}
	bytes := len(err.Error()) + 128
	switch err := err.(type) { //nolint:errorlint // it walks the tree itself
	case interface{ Unwrap() error }:
		bytes += sizeOf(err.Unwrap())
	case interface{ Unwrap() []error }:
		for _, below := range err.Unwrap() {
			bytes += sizeOf(below)
		}
	}
	return bytes
}
