// Package tree decides who gives what to whom in a zone: which node owns a key, and which of
// those that ask a node for a blob get it from that node, and which are passed on to another that has, or
// is getting, it. So a blob spreads as a tree.
//
// It is pure: it knows no network and no clock, so that nodes and simulations run the same code.
package tree

import (
	"crypto/sha256"
	"encoding/binary"
)

// Place is a node's place among the owners. It depends on the node's address alone, so that a node which
// starts again owns what it did before.
type Place uint64

// PlaceOf returns the place of the node at an address.
func PlaceOf(address string) Place { return Place(hash("node " + address)) }

// Owners returns the owner of a key, and those that take its place if it cannot be asked, in order: the
// indexes of most places at most. It is rendezvous hashing: all nodes that know of the same places agree,
// and a place that comes or goes changes the owner of no more keys than it owns.
func Owners(key string, places []Place, most int) []int {
	k := hash("key " + key)
	type ranked struct {
		weight uint64
		place  Place
		index  int
	}
	before := func(a, b ranked) bool { return a.weight > b.weight || a.weight == b.weight && a.place < b.place }
	best := make([]ranked, 0, most+1)
	for i, place := range places {
		r := ranked{mix(k ^ uint64(place)), place, i}
		at := len(best)
		for at > 0 && before(r, best[at-1]) {
			at--
		}
		if at == most {
			continue
		}
		best = append(best, ranked{})
		copy(best[at+1:], best[at:])
		best[at] = r
		best = best[:min(len(best), most)]
	}
	owners := make([]int, len(best))
	for i, r := range best {
		owners[i] = r.index
	}
	return owners
}

func hash(s string) uint64 {
	sum := sha256.Sum256([]byte(s))
	return binary.BigEndian.Uint64(sum[:8])
}

// mix spreads the bits of x evenly: the last step of splitmix64 (Steele, Lea and Flood 2014).
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
