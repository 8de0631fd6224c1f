package cache

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/larder-registry/larder/cache/blobs"
	"github.com/larder-registry/larder/cache/disk"
	"github.com/larder-registry/larder/cache/fill/filltest"
	"github.com/opencontainers/go-digest"
	"pgregory.net/rapid"
)

// A store and a model do the same random operations. The model checks each eviction: whether
// another blob should have been evicted first.
func TestEvictionOrderAgreesWithAModel(t *testing.T) {
	log := &evictionLog{Handler: slog.DiscardHandler}
	s := openStore(t, t.TempDir(), Options{Log: slog.New(log), ScrubEvery: -1})
	loaded(t, s)
	rapid.Check(t, func(rt *rapid.T) {
		clearOut(t, s)
		m := drawModel(t, rt, s)
		m.log = log
		rt.Repeat(map[string]func(*rapid.T){
			"pull":   m.pull,
			"use":    m.use,
			"expire": m.expire,
			"pin":    m.pin,
			"unpin":  m.unpin,
			"remove": m.remove,
			"evict":  m.evict,
			"":       m.compare,
		})
	})
}

// clearOut removes everything from a store.
func clearOut(t *testing.T, s *Store) {
	t.Helper()
	pins, err := s.index.Pins()
	if err != nil {
		t.Fatal(err)
	}
	for pin := range pins {
		if err := s.Unpin(pin.Repository, pin.Reference); err != nil {
			t.Fatal(err)
		}
	}
	for _, img := range listed(t, s) {
		if _, err := s.Remove(Repository{Upstream: img.Upstream, Name: img.Repository}, img.Digest.String()); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
	}
	evictAll(t, s)
	if err := s.Expire(nil); err != nil {
		t.Fatal(err)
	}
}

// evictionLog records the latest reason that was logged for the eviction of each blob.
type evictionLog struct {
	slog.Handler // for all other records
	reasons      map[digest.Digest]string
}

func (*evictionLog) Enabled(context.Context, slog.Level) bool { return true }

func (l *evictionLog) Handle(_ context.Context, r slog.Record) error {
	attrs := make(map[string]slog.Value)
	r.Attrs(func(a slog.Attr) bool {
		attrs[a.Key] = a.Value
		return true
	})
	if r.Message == "evicted" && l.reasons != nil {
		l.reasons[attrs["digest"].Any().(digest.Digest)] = attrs["reason"].String()
	}
	return nil
}

// orderModel knows everything that determines the order of eviction. It examines all of it at
// each step.
type orderModel struct {
	t     *testing.T
	store *Store
	log   *evictionLog

	images []*image // manifests, then indexes of them
	layers []*filltest.Origin
	parts  map[digest.Digest][]digest.Digest

	stored  map[digest.Digest]modelItem
	clock   int
	tags    map[int]bool                  // the images that have a tag, by their place
	pins    map[int]bool                  // the same
	expired map[digest.Digest]modelExpiry // what is evicted first
}

// modelItem is a blob in the store.
type modelItem struct {
	bytes int64
	used  int // by the model's clock
	// loose is set if the store may evict blobs of the same time in any order, as long as
	// images come before their parts.
	loose bool
}

// modelExpiry is that of the image that expired last, of those that need a blob.
type modelExpiry struct {
	since time.Time
	image digest.Digest
}

func (e modelExpiry) before(other modelExpiry) bool {
	if c := e.since.Compare(other.since); c != 0 {
		return c < 0
	}
	return e.image < other.image
}

// drawModel draws images that share layers, and indexes that share images.
func drawModel(t *testing.T, rt *rapid.T, s *Store) *orderModel {
	m := &orderModel{
		t: t, store: s,
		parts:   make(map[digest.Digest][]digest.Digest),
		stored:  make(map[digest.Digest]modelItem),
		tags:    make(map[int]bool),
		pins:    make(map[int]bool),
		expired: make(map[digest.Digest]modelExpiry),
	}
	for i := range 6 {
		m.layers = append(m.layers, filltest.New(1+5000*i, uint64(i)))
	}
	for i := range 4 {
		layers := rapid.SliceOfNDistinct(rapid.SampledFrom(m.layers), 1, 4, func(o *filltest.Origin) digest.Digest { return o.Digest }).Draw(rt, "layers")
		img := newImage(fmt.Sprint(i), layers...)
		for _, l := range layers {
			m.parts[img.Digest] = append(m.parts[img.Digest], l.Digest)
		}
		m.images = append(m.images, img)
	}
	platforms := slices.Clone(m.images)
	for range 2 {
		list := rapid.SliceOfNDistinct(rapid.SampledFrom(platforms), 1, 3, func(i *image) digest.Digest { return i.Digest }).Draw(rt, "platforms")
		index := newList(list...)
		if m.parts[index.Digest] != nil {
			continue // the same again
		}
		for _, p := range list {
			m.parts[index.Digest] = append(m.parts[index.Digest], p.Digest)
		}
		m.images = append(m.images, index)
	}
	return m
}

func tagOf(i int) string { return fmt.Sprint("v", i) }

func (m *orderModel) drawImage(rt *rapid.T) int {
	return rapid.IntRange(0, len(m.images)-1).Draw(rt, "image")
}

// reachable returns the roots and everything they lead to through stored manifests.
func (m *orderModel) reachable(roots ...digest.Digest) map[digest.Digest]bool {
	all := make(map[digest.Digest]bool)
	for len(roots) > 0 {
		d := roots[0]
		roots = roots[1:]
		if _, stored := m.stored[d]; stored && !all[d] {
			roots = append(roots, m.parts[d]...)
		}
		all[d] = true
	}
	return all
}

// listed returns the images that ls lists: those with a tag, and stored manifests that no tag
// leads to and no stored manifest names.
func (m *orderModel) listed() []digest.Digest {
	var all []digest.Digest
	for i := range m.tags {
		all = append(all, m.images[i].Digest)
	}
	led := m.reachable(all...)
	for _, img := range m.images {
		if _, stored := m.stored[img.Digest]; stored && !led[img.Digest] && len(m.needing(img.Digest)) == 0 {
			all = append(all, img.Digest)
		}
	}
	return all
}

// needing returns the stored manifests that name a blob.
func (m *orderModel) needing(d digest.Digest) []digest.Digest {
	var all []digest.Digest
	for _, img := range m.images {
		if _, stored := m.stored[img.Digest]; stored && slices.Contains(m.parts[img.Digest], d) {
			all = append(all, img.Digest)
		}
	}
	return all
}

func (m *orderModel) pinned() map[digest.Digest]bool {
	var roots []digest.Digest
	for i := range m.pins {
		roots = append(roots, m.images[i].Digest)
	}
	return m.reachable(roots...)
}

// touch makes stored blobs the most recently used ones, all at the same time.
func (m *orderModel) touch(all map[digest.Digest]bool, loose bool) {
	m.clock++
	for d := range all {
		if it, ok := m.stored[d]; ok {
			it.used, it.loose = m.clock, loose
			m.stored[d] = it
			delete(m.expired, d)
		}
	}
}

func (m *orderModel) usedImage(img *image) {
	m.stored[img.Digest] = modelItem{bytes: disk.Charge(img.Size)}
	m.touch(m.reachable(img.Digest), false)
}

// pull pulls an image, or part of it, as container runtimes do.
func (m *orderModel) pull(rt *rapid.T) {
	i := m.drawImage(rt)
	m.store.recordUses() // else a blob that was used a moment ago keeps its time
	pullTag(m.t, m.store, team, tagOf(i), m.images[i])
	m.tags[i] = true
	m.usedImage(m.images[i])
	for _, img := range m.images {
		if slices.Contains(m.parts[m.images[i].Digest], img.Digest) && rapid.Bool().Draw(rt, "platform") {
			m.store.recordUses()
			pullDigest(m.t, m.store, team, img)
			m.usedImage(img)
		}
	}
	needs := m.reachable(m.images[i].Digest)
	for _, l := range m.layers {
		if needs[l.Digest] && rapid.IntRange(0, 3).Draw(rt, "layer") > 0 {
			pullLayers(m.t, m.store, l)
			m.stored[l.Digest] = modelItem{bytes: disk.Charge(int64(len(l.Content)))}
			m.touch(map[digest.Digest]bool{l.Digest: true}, false)
		}
	}
}

// use requests a stored manifest or layer.
func (m *orderModel) use(rt *rapid.T) {
	m.store.recordUses()
	if img := m.images[m.drawImage(rt)]; rapid.Bool().Draw(rt, "whole") {
		if _, stored := m.stored[img.Digest]; stored {
			pullDigest(m.t, m.store, team, img)
			m.touch(m.reachable(img.Digest), false)
		}
		return
	}
	l := rapid.SampledFrom(m.layers).Draw(rt, "layer")
	if _, stored := m.stored[l.Digest]; stored {
		pullLayers(m.t, m.store, l)
		m.touch(map[digest.Digest]bool{l.Digest: true}, false)
	}
}

// expire makes some images expire, not all of which are stored.
func (m *orderModel) expire(rt *rapid.T) {
	var verdicts []Verdict
	roots := make(map[digest.Digest]modelExpiry)
	for _, img := range m.images {
		hours := rapid.IntRange(-3, 3).Draw(rt, "hours")
		if hours < 1 {
			continue
		}
		since := time.Unix(0, 0).Add(time.Duration(hours) * time.Hour)
		verdicts = append(verdicts, Verdict{Repository: team, Digest: img.Digest, Expiry: Expiry{Since: since}})
		if _, stored := m.stored[img.Digest]; stored {
			roots[img.Digest] = modelExpiry{since, img.Digest}
		}
	}
	if err := m.store.Expire(verdicts); err != nil {
		rt.Fatal(err)
	}
	stay := m.reachable(slices.DeleteFunc(m.listed(), func(d digest.Digest) bool { _, gone := roots[d]; return gone })...)
	expired := make(map[digest.Digest]modelExpiry)
	for root, e := range roots {
		for d := range m.reachable(root) {
			if _, stored := m.stored[d]; stored && !stay[d] && (expired[d].image == "" || expired[d].before(e)) {
				expired[d] = e
			}
		}
	}
	m.expired = expired
}

func (m *orderModel) pin(rt *rapid.T) {
	i := m.drawImage(rt)
	if err := m.store.Pin(team, tagOf(i)); (err == nil) != m.tags[i] {
		rt.Fatalf("pin %d: %v", i, err)
	}
	if m.tags[i] {
		m.pins[i] = true
	}
}

func (m *orderModel) unpin(rt *rapid.T) {
	i := m.drawImage(rt)
	before := m.pinned()
	if err := m.store.Unpin(team, tagOf(i)); (err == nil) != m.pins[i] {
		rt.Fatalf("unpin %d: %v", i, err)
	}
	delete(m.pins, i)
	for d := range m.pinned() {
		delete(before, d)
	}
	m.touch(before, true)
}

func (m *orderModel) remove(rt *rapid.T) {
	i := m.drawImage(rt)
	m.log.reasons = make(map[digest.Digest]string)
	_, err := m.store.Remove(team, tagOf(i))
	if wanted := m.tags[i] && !m.pins[i]; (err == nil) != wanted {
		rt.Fatalf("remove %d: %v", i, err)
	} else if !wanted {
		return
	}
	rest := slices.DeleteFunc(m.listed(), func(d digest.Digest) bool { return d == m.images[i].Digest })
	gone := m.reachable(m.images[i].Digest)
	delete(m.tags, i)
	want := make(map[digest.Digest]string)
	others := m.reachable(rest...)
	for d := range gone {
		if _, stored := m.stored[d]; stored && !others[d] {
			want[d] = blobs.ReasonRemoved
			delete(m.stored, d)
			delete(m.expired, d)
		}
	}
	if diff := cmp.Diff(want, m.log.reasons); diff != "" {
		rt.Fatalf("removed (-want +got):\n%s", diff)
	}
}

// evict evicts one blob.
func (m *orderModel) evict(rt *rapid.T) {
	m.log.reasons = make(map[digest.Digest]string)
	if err := evictNow(m.store, 1); err != nil {
		rt.Fatal(err)
	}
	candidates := m.evictable()
	if len(candidates) == 0 && len(m.log.reasons) == 0 {
		return
	}
	gone := slices.Collect(maps.Keys(m.log.reasons))
	if len(gone) != 1 {
		rt.Fatalf("%d blobs were evicted, and %d could be", len(gone), len(candidates))
	}
	d, want := gone[0], blobs.ReasonUnused
	if _, expired := m.expired[d]; expired {
		want = blobs.ReasonExpired
	}
	if wrong := m.wrong(d, candidates); wrong != "" || m.log.reasons[d] != want {
		rt.Fatalf("%s was evicted as %s: %s\n%s", m.name(d), m.log.reasons[d], wrong, m)
	}
	delete(m.stored, d)
	delete(m.expired, d)
}

func (m *orderModel) evictable() []digest.Digest {
	pinned := m.pinned()
	var all []digest.Digest
	for d := range m.stored {
		if !pinned[d] {
			all = append(all, d)
		}
	}
	return all
}

// wrong says why a blob should not have been evicted, or nothing.
func (m *orderModel) wrong(d digest.Digest, candidates []digest.Digest) string {
	if !slices.Contains(candidates, d) {
		return "it is pinned"
	}
	if needing := m.needing(d); len(needing) > 0 {
		return m.name(needing[0]) + " needs it"
	}
	it := m.stored[d]
	e, expired := m.expired[d]
	for _, other := range candidates {
		than := m.stored[other]
		oe, otherExpired := m.expired[other]
		switch {
		case !expired && otherExpired:
			return m.name(other) + " has expired"
		case expired && otherExpired && oe.before(e):
			return m.name(other) + " expired earlier"
		case expired || otherExpired:
		case than.used < it.used:
			return m.name(other) + " was used less recently"
		case than.used == it.used && !it.loose && m.isLayer(d) && m.isLayer(other) && than.bytes > it.bytes:
			return m.name(other) + " is larger"
		}
	}
	return ""
}

func (m *orderModel) isLayer(d digest.Digest) bool { return m.parts[d] == nil }

// compare fails the test unless the store has what the model has.
func (m *orderModel) compare(rt *rapid.T) {
	got := make(map[string]int64)
	for d := range resident(m.store) {
		it, _ := m.store.items.Get(d)
		got[m.name(d)] = it.Bytes
	}
	want := make(map[string]int64)
	for d, it := range m.stored {
		want[m.name(d)] = it.bytes
	}
	if diff := cmp.Diff(want, got); diff != "" {
		rt.Fatalf("stored (-want +got):\n%s", diff)
	}
}

// resident returns the blobs in the folder of a store.
func resident(s *Store) map[digest.Digest]bool {
	all := make(map[digest.Digest]bool)
	for _, d := range s.items.Digests() {
		all[d] = true
	}
	return all
}

func (m *orderModel) name(d digest.Digest) string {
	for i, img := range m.images {
		if img.Digest == d {
			return fmt.Sprint("image ", i)
		}
	}
	for i, l := range m.layers {
		if l.Digest == d {
			return fmt.Sprint("layer ", i)
		}
	}
	return string(d)
}

// String lists the stored blobs, with what determines their order.
func (m *orderModel) String() string {
	var b strings.Builder
	pinned := m.pinned()
	for d, it := range m.stored {
		fmt.Fprintf(&b, "%s: used %d, %d bytes, pinned %t, needs", m.name(d), it.used, it.bytes, pinned[d])
		for _, p := range m.parts[d] {
			fmt.Fprintf(&b, " %s,", m.name(p))
		}
		if e, ok := m.expired[d]; ok {
			fmt.Fprintf(&b, " expired %s of %s", e.since.Format(time.TimeOnly), m.name(e.image))
		}
		b.WriteByte('\n')
	}
	return b.String()
}
