package cache

import "time"

// memoryRefusals bounds what refusals take, in bytes. A usual one takes 1 to 2 KiB, and one
// with AWS's explanation up to 8: clients may ask for any number of things that do not exist.
const memoryRefusals = 4 << 20

// refusals remembers the latest refusals of upstreams. It is safe for concurrent use.
type refusals struct{ *sized[string, refusal] }

// refusal is an upstream's answer that something does not exist or is not allowed.
type refusal struct {
	err   error
	until time.Time
}

func newRefusals() refusals { return refusals{newSized[string, refusal](memoryRefusals)} }

// add remembers a refusal until a given time.
func (r refusals) add(key string, err error, until time.Time) {
	r.sized.add(key, refusal{err, until}, len(key)+refusalOverhead+sizeOf(err))
}

// get returns a refusal that is still remembered, or nil.
func (r refusals) get(key string, now time.Time) error {
	known, ok := r.sized.get(key)
	switch {
	case !ok:
		return nil
	case now.Before(known.until):
		return known.err
	}
	r.remove(key)
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
