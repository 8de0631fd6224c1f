package recency

import (
	"bytes"
	"slices"

	"github.com/opencontainers/go-digest"
)

// Found is an item that a scan of the folder found.
type Found struct {
	id   fingerprint
	long digest.Digest // the digest, if id does not tell it

	Item
	Used int64 // when it was last used, in seconds since 1970
	Rank Rank
}

// NewFound returns a found item.
func NewFound(d digest.Digest, it Item, used int64) Found {
	f := Found{id: fingerprintOf(d), Item: it, Used: used, Rank: RankBlob}
	if _, ok := sha256Of(d); !ok {
		f.long = d
	}
	return f
}

// Digest is the digest of the item.
func (f Found) Digest() digest.Digest {
	if f.long != "" {
		return f.long
	}
	return f.id.digest()
}

// Rank orders items that were used in the same second.
type Rank uint8

// From the first to the last to be evicted.
const (
	RankIndex Rank = iota
	RankInner      // an index that another index lists
	RankManifest
	RankBlob
)

// SortByDigest sorts found items so that [Find] can be called.
func SortByDigest(all []Found) {
	slices.SortFunc(all, func(a, b Found) int { return bytes.Compare(a.id[:], b.id[:]) })
}

// Find returns the item of a digest in a slice that SortByDigest has sorted, or nil.
func Find(all []Found, d digest.Digest) *Found {
	id := fingerprintOf(d)
	i, ok := slices.BinarySearchFunc(all, id, func(f Found, id fingerprint) int { return bytes.Compare(f.id[:], id[:]) })
	if !ok {
		return nil
	}
	return &all[i]
}
