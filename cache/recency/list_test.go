package recency_test

import (
	"fmt"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/larder-registry/larder/cache/recency"
	"github.com/opencontainers/go-digest"
	"pgregory.net/rapid"
)

// The model is a slice, the least recently used item first.
func TestListAgreesWithAModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := recency.New(time.Minute)
		r.Load(nil)
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
				if got := r.Add(d, recency.Item{Bytes: n}, time.Now()); got != sizes[d] {
					t.Fatalf("Add replaced %d bytes, want %d", got, sizes[d])
				}
				sizes[d] = n
				toEnd(d)
			},
			"use": func(t *rapid.T) {
				d := names.Draw(t, "digest")
				r.Use(d, time.Now())
				if sizes[d] > 0 {
					toEnd(d)
				}
			},
			"remove": func(t *rapid.T) {
				d := names.Draw(t, "digest")
				if it, ok := r.Remove(d); ok != (sizes[d] > 0) || it.Bytes != sizes[d] {
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
				first, expired, ok := r.First()
				if expired {
					t.Fatalf("%q has expired", first)
				}
				if r.Bytes() != sum || r.Len() != len(list) || ok != (len(list) > 0) || ok && first != list[0] {
					t.Fatalf("%d bytes, %d items, oldest %q; want %d, %d of %v", r.Bytes(), r.Len(), first, sum, len(list), list)
				}
			},
		})
	})
}

func TestUsesBeforeLoadKeepTheirOrder(t *testing.T) {
	r := recency.New(time.Minute)
	now := time.Now()
	for _, d := range []digest.Digest{"image a", "base", "image b", "base"} {
		r.Use(d, now)
	}
	var all []recency.Found
	for _, d := range []digest.Digest{"base", "image b", "image a", "other"} {
		all = append(all, recency.NewFound(d, recency.Item{}, now.Unix()))
	}
	r.Load(all)
	if got, want := r.Digests(), []digest.Digest{"other", "image a", "image b", "base"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestLoadedItemsAreOlderThanUsesBeforeLoad(t *testing.T) {
	r := recency.New(time.Minute)
	now := time.Now()
	r.Add("new", recency.Item{Bytes: 1}, now)
	r.Use("used", now)
	r.Use("gone", now)
	r.Load([]recency.Found{
		ranked("used", recency.Item{Bytes: 1}, now.Add(-time.Hour), recency.RankIndex),
		ranked("small", recency.Item{Bytes: 1}, now, recency.RankBlob),
		ranked("large", recency.Item{Bytes: 9}, now, recency.RankBlob),
		ranked("manifest", recency.Item{Bytes: 1}, now, recency.RankManifest),
		ranked("index", recency.Item{Bytes: 1}, now, recency.RankIndex),
		ranked("old", recency.Item{Bytes: 1}, now.Add(-time.Minute), recency.RankBlob),
		ranked("new", recency.Item{Bytes: 1}, now.Add(-time.Hour), recency.RankIndex),
	})
	want := []digest.Digest{"old", "index", "manifest", "large", "small", "new", "used"}
	if r.Bytes() != 15 {
		t.Errorf("all items have %d bytes, want 15", r.Bytes())
	}
	if uses := r.TakeUses(); len(uses) != 2 {
		t.Errorf("uses: %v, want two", uses)
	}
	if uses := r.TakeUses(); len(uses) != 0 {
		t.Errorf("uses after they were taken: %v", uses)
	}
	if got := r.Digests(); !slices.Equal(got, want) {
		t.Errorf("the order is %v, want %v", got, want)
	}
}

func ranked(d digest.Digest, it recency.Item, used time.Time, r recency.Rank) recency.Found {
	f := recency.NewFound(d, it, used.Unix())
	f.Rank = r
	return f
}

// FORMAT.md has the figure.
func TestItemTakesLittleMemory(t *testing.T) {
	const n = 100_000
	all := make([]recency.Found, n)
	for i := range all {
		all[i] = recency.NewFound(digest.FromString(fmt.Sprint(i)), recency.Item{Bytes: 4096}, int64(i))
	}
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	r := recency.New(time.Minute)
	r.Load(all)
	each := float64(heap()-before) / n
	t.Logf("%.0f bytes a blob", each)
	if each > 160 {
		t.Errorf("%.0f bytes a blob", each)
	}
	runtime.KeepAlive(all)
	runtime.KeepAlive(r)
}
