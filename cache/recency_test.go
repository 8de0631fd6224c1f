package cache

import (
	"fmt"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"pgregory.net/rapid"
)

// TestRecencyAgreesWithAList drives the recency beside a plain list, the
// longest unused first.
func TestRecencyAgreesWithAList(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := newRecency()
		r.load(nil)
		var list []digest.Digest
		sizes := make(map[digest.Digest]int64)
		names := rapid.Custom(func(t *rapid.T) digest.Digest {
			return digest.Digest(fmt.Sprint(rapid.IntRange(0, 9).Draw(t, "name")))
		})
		toEnd := func(d digest.Digest) {
			list = slices.DeleteFunc(list, func(e digest.Digest) bool { return e == d })
			list = append(list, d)
		}
		t.Repeat(map[string]func(*rapid.T){
			"add": func(t *rapid.T) {
				d, n := names.Draw(t, "digest"), rapid.Int64Range(1, 100).Draw(t, "bytes")
				if got := r.add(d, item{bytes: n}, time.Now()); got != sizes[d] {
					t.Fatalf("add took the place of %d bytes, want %d", got, sizes[d])
				}
				sizes[d] = n
				toEnd(d)
			},
			"use": func(t *rapid.T) {
				d := names.Draw(t, "digest")
				r.use(d, time.Now())
				if sizes[d] > 0 {
					toEnd(d)
				}
			},
			"remove": func(t *rapid.T) {
				d := names.Draw(t, "digest")
				if it, ok := r.remove(d); ok != (sizes[d] > 0) || it.bytes != sizes[d] {
					t.Fatalf("removed %+v, %v", it, ok)
				}
				delete(sizes, d)
				list = slices.DeleteFunc(list, func(e digest.Digest) bool { return e == d })
			},
			"": func(t *rapid.T) {
				var sum int64
				for _, n := range sizes {
					sum += n
				}
				first, expired, ok := r.first()
				if expired {
					t.Fatalf("%q has expired", first)
				}
				if r.total() != sum || r.len() != len(list) || ok != (len(list) > 0) || ok && first != list[0] {
					t.Fatalf("%d bytes, %d items, oldest %q; want %d, %d of %v", r.total(), r.len(), first, sum, len(list), list)
				}
			},
		})
	})
}

func TestOrderOfUsesBeforeTheScanIsThatOfTheLatest(t *testing.T) {
	r := newRecency()
	now := time.Now()
	for _, d := range []digest.Digest{"image a", "base", "image b", "base"} {
		r.use(d, now)
	}
	var found []found
	for _, d := range []digest.Digest{"base", "image b", "image a", "other"} {
		found = append(found, foundItem(d, item{}, now))
	}
	r.load(found)
	if got, want := r.order.all(), []digest.Digest{"other", "image a", "image b", "base"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestScanPutsWhatItFoundBehindWhatWasUsedMeanwhile(t *testing.T) {
	r := newRecency()
	now := time.Now()
	r.add("new", item{bytes: 1}, now)
	r.use("used", now)
	r.use("gone", now)
	r.load([]found{
		ranked("used", item{bytes: 1}, now.Add(-time.Hour), rankIndex),
		ranked("small", item{bytes: 1}, now, rankBlob),
		ranked("large", item{bytes: 9}, now, rankBlob),
		ranked("manifest", item{bytes: 1}, now, rankManifest),
		ranked("index", item{bytes: 1}, now, rankIndex),
		ranked("old", item{bytes: 1}, now.Add(-time.Minute), rankBlob),
		ranked("new", item{bytes: 1}, now.Add(-time.Hour), rankIndex),
	})
	want := []digest.Digest{"old", "index", "manifest", "large", "small", "new", "used"}
	if got := r.order.all(); !slices.Equal(got, want) || r.total() != 15 {
		t.Errorf("got %v, %d bytes; want %v", got, r.total(), want)
	}
	if recent := r.drain(); len(recent) != 2 {
		t.Errorf("recently used: %v", recent)
	}
	if recent := r.drain(); len(recent) != 0 {
		t.Errorf("again: %v", recent)
	}
}

func ranked(d digest.Digest, it item, used time.Time, r rank) found {
	f := foundItem(d, it, used)
	f.rank = r
	return f
}

// TestRecencyIsSmall holds FORMAT.md to its word.
func TestRecencyIsSmall(t *testing.T) {
	const n = 100_000
	all := make([]found, n)
	for i := range all {
		all[i] = foundItem(digest.FromString(fmt.Sprint(i)), item{bytes: block}, time.Unix(int64(i), 0))
	}
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	r := newRecency()
	r.load(all)
	each := float64(heap()-before) / n
	t.Logf("%.0f bytes a blob", each)
	if each > 160 {
		t.Errorf("%.0f bytes a blob", each)
	}
	runtime.KeepAlive(all)
	runtime.KeepAlive(r)
}

// all lists the digests, the longest unused first.
func (o *order) all() []digest.Digest {
	var all []digest.Digest
	for i := o.slots[0].next; i != 0; i = o.slots[i].next {
		all = append(all, o.digest(i))
	}
	return all
}
