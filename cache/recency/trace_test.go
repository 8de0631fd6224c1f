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

// A trace is a sequence of pulls of whole images. Those of a hot set take half the bound, and
// are pulled with equal probability. Those of a scan take five times the bound, and are
// pulled once each. A hundred images share a layer; the other layers belong to one image. All
// blobs have the same size, so the optimum is to evict the blob whose next use is last.
const (
	traceBound  = 2000 // blobs
	traceLayers = 8    // of an image
	traceHot    = traceBound / 2 / traceLayers
	traceScan   = 5 * traceBound / traceLayers
)

// imagePull is a pull of an image. The images of the hot set have numbers below traceHot.
type imagePull struct {
	image int
	blobs []digest.Digest // its blobs, in the reverse order of their pulls, as List expects them
}

// pulls returns a trace. Of ten pulls hotOfTen are of the hot set, on average.
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

// policy decides what is evicted. It is called for each pull of a blob, and says whether the
// blob was stored.
type policy interface {
	pull(d digest.Digest) (hit bool)
}

// ordered evicts in the order of the store.
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

// hinted is the same with a lifecycle policy, which from time to time expires all scanned
// images but the latest.
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

// segmented is a segmented LRU: blobs that were used twice may take four fifths of the bound,
// and blobs that were used once are evicted first.
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

// hitRatio returns which part of the pulls of hot blobs were hits, without the first pull of
// each image.
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

// optimum evicts the blob whose next pull is last.
type optimum struct {
	next   map[digest.Digest][]int // the times of its pulls, the next one first
	stored map[digest.Digest]bool
	last   nextPulls // of the stored blobs; some entries are outdated
}

func newOptimum(trace []imagePull) *optimum {
	o := &optimum{next: make(map[digest.Digest][]int), stored: make(map[digest.Digest]bool)}
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
	hit := o.stored[d]
	if len(o.next[d]) == 0 {
		delete(o.stored, d)
		return hit
	}
	o.stored[d] = true
	heap.Push(&o.last, nextPull{d, o.next[d][0]})
	for len(o.stored) > traceBound {
		// The entry of a blob that was pulled since then is outdated.
		if p := heap.Pop(&o.last).(nextPull); len(o.next[p.digest]) > 0 && o.next[p.digest][0] == p.at {
			delete(o.stored, p.digest)
		}
	}
	return hit
}

// nextPulls is a heap of next pulls, the latest first.
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

// The test logs which part of a hot set survives a scan. FORMAT.md has the figures.
func TestLifecycleHintsKeepAHotSetFromAScan(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		hotOfTen int
		least    float64 // the least hit ratio without hints
	}{{8, 0.99}, {5, 0.82}, {2, 0.61}} {
		trace := pulls(c.hotOfTen)
		plain := hitRatio(trace, newOrdered())
		hints := hitRatio(trace, &hinted{ordered: newOrdered(), keep: traceBound / 10})
		apart := hitRatio(trace, segmented{newOrdered(), newOrdered()})
		best := hitRatio(trace, newOptimum(trace))
		t.Logf("of ten pulls %d hot: hits by last use %.1f%%, with lifecycle hints %.1f%%, used once and twice apart %.1f%%, optimum %.1f%%",
			c.hotOfTen, 100*plain, 100*hints, 100*apart, 100*best)
		if plain < c.least || hints < 0.999 || best < max(plain, hints, apart) {
			t.Errorf("of ten pulls %d hot: the hit ratios are lower than expected", c.hotOfTen)
		}
	}
}
