package recency_test

import (
	"container/heap"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/larder-registry/larder/cache/recency"
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

// imagePull is a pull of an image. Those of the hot set have the numbers below
// traceHot.
type imagePull struct {
	image int
	blobs []digest.Digest // that it needs, the first one last, as List wants it
}

// pulls lists the images that are pulled. Of every ten some are of the hot set.
func pulls(hotOfTen int) []imagePull {
	random := rand.New(rand.NewPCG(1, uint64(hotOfTen)))
	hot := make([]imagePull, traceHot)
	for image := range hot {
		hot[image] = newImagePull(image)
	}
	var all []imagePull
	for next := traceHot; next < traceHot+traceScan; {
		if random.IntN(10) < hotOfTen {
			all = append(all, hot[random.IntN(traceHot)])
		} else {
			all = append(all, newImagePull(next))
			next++
		}
	}
	return all
}

func newImagePull(image int) imagePull {
	blobs := []digest.Digest{digest.FromString(fmt.Sprint("base ", image/100))}
	for i := 1; i < traceLayers; i++ {
		blobs = append(blobs, digest.FromString(fmt.Sprint(image, " ", i)))
	}
	return imagePull{image, blobs}
}

// policy decides what stays. It is told of every pull of a blob, and answers
// whether it was there.
type policy interface {
	pull(d digest.Digest) (hit bool)
}

// ordered is the store's own order of eviction.
type ordered struct{ *recency.List }

func newOrdered() ordered {
	r := recency.New(time.Minute)
	r.Load(nil)
	return ordered{r}
}

func (o ordered) pull(d digest.Digest) bool {
	if _, ok := o.Get(d); ok {
		o.Use(d, time.Time{})
		return true
	}
	for o.Len() >= traceBound {
		oldest, _, _ := o.First()
		o.Remove(oldest)
	}
	o.Add(d, recency.Item{Bytes: 1}, time.Time{})
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

func (h *hinted) after(p imagePull) {
	if p.image >= traceHot {
		h.scanned = append(h.scanned, p.blobs[1:]...)
	}
	if h.pulls++; h.pulls%100 == 0 {
		old := h.scanned[:max(0, len(h.scanned)-h.keep)]
		w := h.Watch()
		h.Expire(old[max(0, len(old)-traceBound):], w)
		h.EndWatch(w)
	}
}

// segmented keeps what was used twice apart: it may take four fifths of the
// bound, and what was used once goes first.
type segmented struct{ once, twice ordered }

func (s segmented) pull(d digest.Digest) bool {
	if _, ok := s.twice.Get(d); ok {
		s.twice.Use(d, time.Time{})
		return true
	}
	if _, ok := s.once.Remove(d); ok {
		s.twice.Add(d, recency.Item{Bytes: 1}, time.Time{})
		if s.twice.Len() > traceBound*4/5 {
			oldest, _, _ := s.twice.First()
			s.twice.Remove(oldest)
			s.once.Add(oldest, recency.Item{Bytes: 1}, time.Time{})
		}
		return true
	}
	if s.once.Len()+s.twice.Len() >= traceBound {
		oldest, _, _ := s.once.First()
		s.once.Remove(oldest)
	}
	s.once.Add(d, recency.Item{Bytes: 1}, time.Time{})
	return false
}

// hitRatio is the part of the hot set's blobs that were there when they were
// pulled, after the first pull of each.
func hitRatio(trace []imagePull, p policy) float64 {
	seen := make(map[int]bool)
	var asked, hits int
	for _, pulled := range trace {
		for _, d := range slices.Backward(pulled.blobs) {
			hit := p.pull(d)
			if pulled.image < traceHot && seen[pulled.image] {
				asked++
				if hit {
					hits++
				}
			}
		}
		seen[pulled.image] = true
		if h, ok := p.(*hinted); ok {
			h.after(pulled)
		}
	}
	return float64(hits) / float64(asked)
}

// optimum knows the future: when each blob is pulled next.
type optimum struct {
	next  map[digest.Digest][]int // when it is pulled, the soonest first
	there map[digest.Digest]bool
	last  nextPulls // of what is there, and some that are over
}

func newOptimum(trace []imagePull) *optimum {
	o := &optimum{next: make(map[digest.Digest][]int), there: make(map[digest.Digest]bool)}
	at := 0
	for _, pulled := range trace {
		for _, d := range slices.Backward(pulled.blobs) {
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
	heap.Push(&o.last, nextPull{d, o.next[d][0]})
	for len(o.there) > traceBound {
		// The entry of a blob that was pulled since says nothing any more.
		if p := heap.Pop(&o.last).(nextPull); len(o.next[p.digest]) > 0 && o.next[p.digest][0] == p.at {
			delete(o.there, p.digest)
		}
	}
	return hit
}

// nextPulls is a heap of when blobs are pulled next, the latest first.
type nextPulls []nextPull

type nextPull struct {
	digest digest.Digest
	at     int
}

func (n nextPulls) Len() int           { return len(n) }
func (n nextPulls) Less(i, j int) bool { return n[i].at > n[j].at }
func (n nextPulls) Swap(i, j int)      { n[i], n[j] = n[j], n[i] }
func (n *nextPulls) Push(p any)        { *n = append(*n, p.(nextPull)) }

func (n *nextPulls) Pop() any {
	all := *n
	last := all[len(all)-1]
	*n = all[:len(all)-1]
	return last
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
