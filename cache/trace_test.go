package cache

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
)

// A trace is a sequence of pulls of whole images: of a hot set that takes half
// the bound, each as likely as the others, and of a scan that takes five times
// the bound, each once. Images are a layer that a hundred others share, and some
// of their own; all blobs are of one size, for which evicting what is next used
// last is the optimum.
const (
	traceBound  = 2000 // blobs
	traceLayers = 8    // of an image
	traceHot    = traceBound / 2 / traceLayers
	traceScan   = 5 * traceBound / traceLayers
)

// pulls lists the images that are pulled: those of the hot set have the numbers
// below traceHot. Of every ten pulls some are of the hot set.
func pulls(hotOfTen int) []int {
	random := rand.New(rand.NewPCG(1, uint64(hotOfTen)))
	var all []int
	for next := traceHot; next < traceHot+traceScan; {
		if random.IntN(10) < hotOfTen {
			all = append(all, random.IntN(traceHot))
		} else {
			all = append(all, next)
			next++
		}
	}
	return all
}

// tracePull is what an image needs, the first one last: see recency.
func tracePull(image int) []digest.Digest {
	blobs := []digest.Digest{digest.FromString(fmt.Sprint("base ", image/100))}
	for i := 1; i < traceLayers; i++ {
		blobs = append(blobs, digest.FromString(fmt.Sprint(image, " ", i)))
	}
	return blobs
}

// policy decides what stays. It is told of every pull of a blob, and answers
// whether it was there.
type policy interface {
	pull(d digest.Digest) (hit bool)
}

// ordered is the store's own order of eviction.
type ordered struct{ *recency }

func newOrdered() ordered {
	r := newRecency()
	r.load(nil)
	return ordered{r}
}

func (o ordered) pull(d digest.Digest) bool {
	if _, ok := o.look(d); ok {
		o.use(d, time.Time{})
		return true
	}
	for o.len() >= traceBound {
		oldest, _, _ := o.first()
		o.remove(oldest)
	}
	o.add(d, item{bytes: 1}, time.Time{})
	return false
}

// hinted is the same where a lifecycle policy has expired what was scanned, but
// for the latest images: it says so once in a while.
type hinted struct {
	ordered
	keep    int
	scanned []digest.Digest
	pulls   int
}

func (h *hinted) after(image int) {
	if image >= traceHot {
		h.scanned = append(h.scanned, tracePull(image)[1:]...)
	}
	if h.pulls++; h.pulls%100 == 0 {
		old := h.scanned[:max(0, len(h.scanned)-h.keep)]
		w := h.watch()
		h.doom(old[max(0, len(old)-traceBound):], w)
		h.unwatch(w)
	}
}

// segmented keeps what was used twice apart: it may take four fifths of the
// bound, and what was used once goes first.
type segmented struct{ once, twice ordered }

func (s segmented) pull(d digest.Digest) bool {
	if _, ok := s.twice.look(d); ok {
		s.twice.use(d, time.Time{})
		return true
	}
	if _, ok := s.once.remove(d); ok {
		s.twice.add(d, item{bytes: 1}, time.Time{})
		if s.twice.len() > traceBound*4/5 {
			oldest, _, _ := s.twice.first()
			s.twice.remove(oldest)
			s.once.add(oldest, item{bytes: 1}, time.Time{})
		}
		return true
	}
	if s.once.len()+s.twice.len() >= traceBound {
		oldest, _, _ := s.once.first()
		s.once.remove(oldest)
	}
	s.once.add(d, item{bytes: 1}, time.Time{})
	return false
}

// hitRatio is the part of the hot set's blobs that were there when they were
// pulled, after the first pull of each.
func hitRatio(trace []int, p policy) float64 {
	seen := make(map[int]bool)
	var asked, hits int
	for _, image := range trace {
		for _, d := range slices.Backward(tracePull(image)) {
			hit := p.pull(d)
			if image < traceHot && seen[image] {
				asked++
				if hit {
					hits++
				}
			}
		}
		seen[image] = true
		if h, ok := p.(*hinted); ok {
			h.after(image)
		}
	}
	return float64(hits) / float64(asked)
}

// optimum knows the future: when each blob is pulled next.
type optimum struct {
	next  map[digest.Digest][]int // when it is pulled, the soonest first
	there map[digest.Digest]bool
}

func newOptimum(trace []int) *optimum {
	o := &optimum{next: make(map[digest.Digest][]int), there: make(map[digest.Digest]bool)}
	at := 0
	for _, image := range trace {
		for _, d := range slices.Backward(tracePull(image)) {
			o.next[d] = append(o.next[d], at)
			at++
		}
	}
	return o
}

func (o *optimum) pull(d digest.Digest) bool {
	o.next[d] = o.next[d][1:]
	hit := o.there[d]
	if len(o.next[d]) == 0 {
		delete(o.there, d)
		return hit
	}
	o.there[d] = true
	if len(o.there) > traceBound {
		last, when := d, -1
		for e := range o.there {
			if o.next[e][0] > when {
				last, when = e, o.next[e][0]
			}
		}
		delete(o.there, last)
	}
	return hit
}

// TestLifecycleHintsKeepAHotSetFromAScan prints what part of a hot set stays while
// a scan goes by: FORMAT.md has the figures.
func TestLifecycleHintsKeepAHotSetFromAScan(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		hotOfTen int
		least    float64 // of the order by last use alone
	}{{8, 0.99}, {5, 0.82}, {2, 0.61}} {
		trace := pulls(c.hotOfTen)
		plain := hitRatio(trace, newOrdered())
		hints := hitRatio(trace, &hinted{ordered: newOrdered(), keep: traceBound / 10})
		apart := hitRatio(trace, segmented{newOrdered(), newOrdered()})
		best := hitRatio(trace, newOptimum(trace))
		t.Logf("of ten pulls %d hot: hits by last use %.1f%%, with lifecycle hints %.1f%%, used once and twice apart %.1f%%, optimum %.1f%%",
			c.hotOfTen, 100*plain, 100*hints, 100*apart, 100*best)
		if plain < c.least || hints < 0.999 || best < max(plain, hints, apart) {
			t.Errorf("of ten pulls %d hot: they do worse than they did", c.hotOfTen)
		}
	}
}
