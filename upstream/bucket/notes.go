package bucket

import (
	"slices"
	"sync"

	"github.com/hashicorp/golang-lru/v2/simplelru"
	"github.com/opencontainers/go-digest"
)

const (
	// maxNotes bounds the digests that are noted, and maxNoted the repositories of each.
	maxNotes = 8192
	maxNoted = 16
)

// notes say where the bytes come from that are on their way, until it is known whether they are right. It is safe
// for concurrent use.
type notes struct {
	mu   sync.Mutex // guards what follows
	list *simplelru.LRU[digest.Digest, note]
}

// note is about one digest.
type note struct {
	given   []string // hosts in whose folder the object is that has given bytes
	fetched []record // the repositories whose upstream has given bytes
}

func newNotes() *notes {
	list, err := simplelru.NewLRU[digest.Digest, note](maxNotes, nil)
	if err != nil {
		panic(err) // only for a size that is not positive
	}
	return &notes{list: list}
}

// gave notes that an object of the bucket gives bytes.
func (n *notes) gave(c content) {
	n.mu.Lock()
	defer n.mu.Unlock()
	known, _ := n.list.Get(c.digest)
	if !slices.Contains(known.given, c.host) && len(known.given) < maxNoted {
		known.given = append(known.given, c.host)
		n.list.Add(c.digest, known)
	}
}

// fetched notes that an upstream gives bytes.
func (n *notes) fetched(r record) {
	n.mu.Lock()
	defer n.mu.Unlock()
	known, _ := n.list.Get(r.Digest)
	isKnown := slices.ContainsFunc(known.fetched, func(old record) bool { return old.id() == r.id() })
	if !isKnown && len(known.fetched) < maxNoted {
		known.fetched = append(known.fetched, r)
		n.list.Add(r.Digest, known)
	}
}

// end returns what was noted of a digest, and forgets it.
func (n *notes) end(d digest.Digest) note {
	n.mu.Lock()
	defer n.mu.Unlock()
	known, _ := n.list.Peek(d)
	n.list.Remove(d)
	return known
}
