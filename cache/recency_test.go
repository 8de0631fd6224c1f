package cache

import (
	"fmt"
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
	r.load([]found{{digest: "base", used: now}, {digest: "image b", used: now}, {digest: "image a", used: now}, {digest: "other", used: now}})
	if got, want := r.order.Keys(), []digest.Digest{"other", "image a", "image b", "base"}; !slices.Equal(got, want) {
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
		{digest: "used", item: item{bytes: 1}, used: now.Add(-time.Hour)},
		{digest: "small", item: item{bytes: 1}, used: now, rank: rankBlob},
		{digest: "large", item: item{bytes: 9}, used: now, rank: rankBlob},
		{digest: "manifest", item: item{bytes: 1}, used: now, rank: rankManifest},
		{digest: "index", item: item{bytes: 1}, used: now, rank: rankIndex},
		{digest: "old", item: item{bytes: 1}, used: now.Add(-time.Minute), rank: rankBlob},
		{digest: "new", item: item{bytes: 1}, used: now.Add(-time.Hour)},
	})
	want := []digest.Digest{"old", "index", "manifest", "large", "small", "new", "used"}
	if got := r.order.Keys(); !slices.Equal(got, want) || r.total() != 15 {
		t.Errorf("got %v, %d bytes; want %v", got, r.total(), want)
	}
	if recent := r.drain(); len(recent) != 2 {
		t.Errorf("recently used: %v", recent)
	}
	if recent := r.drain(); len(recent) != 0 {
		t.Errorf("again: %v", recent)
	}
}
