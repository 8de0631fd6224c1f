package tree

import (
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

const (
	// DefaultChildren is how many nodes get a blob from one node at the same time. With two, a zone of
	// 1,000 nodes is a tree ten levels deep, and a node that sends at its full speed gives each half of
	// that; in a roll-out of several blobs, each node has children in some of their trees only.
	DefaultChildren = 2
	// lingers is how long a child has its place after a request of its has ended: the rest of a blob is
	// asked for in further requests.
	lingers = time.Second
	// remembered is how long a node is known to have a blob, or to be getting it, after it was last given
	// a part. Who is passed on to a node that has it no more comes back and says so.
	remembered = 2 * time.Minute
	// shunned is how long nobody is passed on to a node that was complained about.
	shunned = 10 * time.Second
	// maxBlobs and maxChildren bound what is remembered.
	maxBlobs    = 4096
	maxChildren = 64
)

// Verdict is what a node does with a request for a blob.
type Verdict uint8

const (
	// Give means to answer it, and to call [Giver.Done] or [Giver.Failed] afterwards.
	Give Verdict = iota
	// Pass means to name another node, which has the blob or is getting it.
	Pass
	// Busy means that there are too many children, and no other node is known.
	Busy
)

// Request is one node's for a blob.
type Request struct {
	Blob  string
	Child string // the address of the node that asks
	// Avoid are the nodes that the child was passed on to in vain.
	Avoid []string
	Now   time.Time
}

// Giver knows to which nodes this one has given blobs lately. It is safe for concurrent use.
type Giver struct {
	most int

	mu    sync.Mutex // guards what follows
	blobs *simplelru.LRU[string, *family]
}

// family is a blob's children.
type family struct{ children []*child }

type child struct {
	address string
	open    int       // requests that are being answered
	last    time.Time // it was given a part
	whole   bool      // it was given the last one
	passed  int       // others that were passed on to it
	bad     time.Time // it was complained about
}

// NewGiver returns a Giver that gives a blob to some nodes at the same time. 0 means DefaultChildren.
func NewGiver(children int) *Giver {
	if children <= 0 {
		children = DefaultChildren
	}
	blobs, err := simplelru.NewLRU[string, *family](maxBlobs, nil)
	if err != nil {
		panic(err) // only for a size that is not positive
	}
	return &Giver{most: children, blobs: blobs}
}

// Ask decides about a request. to is the address for Pass.
func (g *Giver) Ask(r Request) (v Verdict, to string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	f, ok := g.blobs.Get(r.Blob)
	if !ok {
		f = &family{}
		g.blobs.Add(r.Blob, f)
	}
	f.forget(r.Now)
	f.complain(r)
	c := f.find(r.Child)
	busy := f.busy(r.Now)
	switch {
	case c != nil && c.isBusy(r.Now), busy < g.most:
		return g.give(f, c, r)
	}
	if other := f.other(r); other != nil {
		other.passed++
		return Pass, other.address
	}
	if busy < 2*g.most {
		return g.give(f, c, r)
	}
	return Busy, ""
}

func (g *Giver) give(f *family, c *child, r Request) (Verdict, string) {
	if c == nil {
		c = &child{address: r.Child}
		f.add(c)
	}
	c.open++
	c.last = r.Now
	return Give, ""
}

// Done notes that a request that was given something has ended. whole says that the child has all of the
// blob now.
func (g *Giver) Done(blob, address string, whole bool, now time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	f, ok := g.blobs.Peek(blob)
	if !ok {
		return
	}
	if c := f.find(address); c != nil {
		c.open = max(c.open-1, 0)
		c.last = now
		c.whole = c.whole || whole
	}
}

// Failed is [Giver.Done] for a request that could be given nothing: nobody is passed on to the child.
func (g *Giver) Failed(blob, address string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	f, ok := g.blobs.Peek(blob)
	if !ok {
		return
	}
	if c := f.find(address); c != nil {
		if c.open--; c.open <= 0 && !c.whole {
			f.children = slices.DeleteFunc(f.children, func(other *child) bool { return other == c })
		}
	}
}

// isBusy reports whether a child has one of the places.
func (c *child) isBusy(now time.Time) bool {
	return c.open > 0 || !c.whole && now.Sub(c.last) < lingers
}

func (f *family) busy(now time.Time) (n int) {
	for _, c := range f.children {
		if c.isBusy(now) {
			n++
		}
	}
	return n
}

func (f *family) find(address string) *child {
	i := slices.IndexFunc(f.children, func(c *child) bool { return c.address == address })
	if i < 0 {
		return nil
	}
	return f.children[i]
}

// add remembers a child, in place of the one that was given something the longest ago.
func (f *family) add(c *child) {
	if len(f.children) >= maxChildren {
		oldest := -1
		for i, other := range f.children {
			if other.open == 0 && (oldest < 0 || other.last.Before(f.children[oldest].last)) {
				oldest = i
			}
		}
		if oldest < 0 {
			return // they are all busy: it is given, and not remembered
		}
		f.children = slices.Delete(f.children, oldest, oldest+1)
	}
	f.children = append(f.children, c)
}

// forget drops what was given too long ago to count on.
func (f *family) forget(now time.Time) {
	f.children = slices.DeleteFunc(f.children, func(c *child) bool { return c.open == 0 && now.Sub(c.last) > remembered })
}

// complain notes which nodes are of no use.
func (f *family) complain(r Request) {
	for _, address := range r.Avoid {
		if c := f.find(address); c != nil {
			c.bad = r.Now
		}
	}
}

// other returns the node to pass a request on to: the one to which the fewest were passed on.
func (f *family) other(r Request) (best *child) {
	for _, c := range f.children {
		switch {
		case c.address == r.Child, slices.Contains(r.Avoid, c.address), !c.bad.IsZero() && r.Now.Sub(c.bad) < shunned:
		case best == nil || c.passed < best.passed:
			best = c
		}
	}
	return best
}
