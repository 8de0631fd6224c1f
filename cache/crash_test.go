package cache

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/larder-registry/larder/cache/blobs"
	"github.com/larder-registry/larder/cache/cachetest"
	"github.com/larder-registry/larder/cache/disk"
	"github.com/larder-registry/larder/cache/fill/filltest"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"
)

// The tests of this file run a scenario with every operation that changes the folder. They
// let the store crash, or a step fail, at each step in turn.

// errDisk is the error of a step that fails. Unlike EIO it is not an error of the disk as a
// whole: after one of these the store would not try any later step.
var errDisk = errors.New("the test made this step fail")

// failure says whether and how a step fails.
type failure int

const (
	works failure = iota
	failsBefore
	failsAfter // after it took effect
)

// tiny splits a blob of some KiB into several segments, and does not retry.
var tiny = Options{
	Segment:     4 << 10,
	Connections: 2,
	ScrubEvery:  -1,
	Tags:        Freshness{StaleIfError: time.Hour},
	Retry:       Retry{First: 1, Later: 1},
	Log:         slog.New(slog.DiscardHandler),
}

// scenario is what happens to a store: fills, one of which fails and is resumed, manifests,
// tags, a pin, evictions of blobs and of a partial, a removal, snapshots of the index, and a
// scrub that finds damage. Clients must not see that steps fail.
type scenario struct {
	t     *testing.T
	store *Store
	model *diskModel
	blobs []*filltest.Origin

	mu   sync.Mutex             // guards what follows
	safe map[digest.Digest]bool // blobs that no crash may lose
	bad  digest.Digest          // damaged, and perhaps not removed yet
	kept snapshotState
}

// snapshotState says what the latest durable snapshot contains. The store must know this much
// without an index.
type snapshotState struct {
	v1, v2, pin bool
}

func newScenario(t *testing.T) *scenario {
	l := &scenario{t: t, safe: make(map[digest.Digest]bool)}
	for i := range 6 {
		l.blobs = append(l.blobs, filltest.New(10<<10+i*1000, uint64(i)))
	}
	return l
}

// images returns an image of the first two blobs, and one of the first and the fourth.
func (l *scenario) images() (pinned, removed *image) {
	return newImage("pinned", l.blobs[:2]...), newImage("removed", l.blobs[0], l.blobs[3])
}

func (l *scenario) run() {
	pinned, removed := l.images()
	l.tag("v1", pinned)
	for _, o := range l.blobs[:4] {
		l.pull(o)
	}
	l.save()
	l.mustIfHere(pinned, l.store.Pin(team, "v1"))

	l.breakOff(l.blobs[4])
	l.pull(l.blobs[4])
	l.breakOff(l.blobs[5])
	l.evict(l.blobs[5].Digest) // a partial
	l.evict(l.blobs[2].Digest)

	l.tag("v2", removed)
	l.pull(l.blobs[3])
	l.save()
	l.unsafe(removed.Digest, l.blobs[3].Digest)
	if _, err := l.store.Stat(pinned.Digest); err != nil { // a step failed, so no other image needs the blob
		l.unsafe(l.blobs[0].Digest)
	}
	_, err := l.store.Remove(team, "v2")
	l.mustIfHere(removed, err)

	l.scrub(l.blobs[4].Digest)
	l.pull(l.blobs[4])
	l.pull(l.blobs[2])
}

// must fails the test for an error that is not that of a failed step.
func (l *scenario) must(err error) {
	l.t.Helper()
	if err != nil && !errors.Is(err, errDisk) {
		l.t.Error(err)
	}
}

// mustIfHere is must for a command about an image. If a step failed, the image may not be in
// the cache: then its tag does not stay.
func (l *scenario) mustIfHere(img *image, err error) {
	l.t.Helper()
	if _, missing := l.store.Stat(img.Digest); missing == nil || !errors.Is(err, fs.ErrNotExist) {
		l.must(err)
	}
}

func (l *scenario) pull(o *filltest.Origin) {
	l.t.Helper()
	pull(l.t, l.store, o)
	settle(l.t, l.store)
	l.isSafe(o.Digest)
}

func (l *scenario) tag(tag string, img *image) {
	l.t.Helper()
	m, _, err := l.store.Tag(l.t.Context(), team, tag, img.ask)
	if err != nil || m.Digest != img.Digest {
		l.t.Errorf("tag %s: %s, %v", tag, m.Digest, err)
	}
	l.isSafe(img.Digest)
}

// breakOff makes a fill fail, which leaves a partial.
func (l *scenario) breakOff(o *filltest.Origin) {
	l.t.Helper()
	o.Plan = func(_ int, r Range) filltest.Act {
		if r.Off >= tiny.Segment {
			return filltest.Act{Err: filltest.ErrBroken}
		}
		return filltest.Act{}
	}
	blob, err := l.store.Open(l.t.Context(), o.Digest, Source{Fetch: o.Fetch})
	if err == nil {
		blob.Close()
	} else if !errors.Is(err, filltest.ErrBroken) {
		l.t.Error(err)
	}
	settle(l.t, l.store)
	o.Plan = nil
}

func (l *scenario) evict(d digest.Digest) {
	l.unsafe(d)
	l.must(evictOne(l.store, d, blobs.ReasonUnused))
}

// scrub damages a blob and scrubs the store.
func (l *scenario) scrub(d digest.Digest) {
	l.t.Helper()
	if _, err := l.store.Stat(d); err != nil {
		return // a step failed
	}
	l.unsafe(d)
	l.mu.Lock()
	l.bad = d
	l.mu.Unlock()
	l.must(l.model.damage(l.store.folder.Blob(d), func(content []byte) { content[100] ^= 1 }))
	_, err := l.store.Scrub(l.t.Context(), nil)
	l.must(err)
	if _, err := os.Lstat(l.store.folder.Blob(d)); err == nil {
		return // a step failed: the blob is not served any more, but a restart forgets this
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.bad = ""
}

// isSafe records that no crash may lose a blob, if it is in the store.
func (l *scenario) isSafe(d digest.Digest) {
	if _, err := l.store.Stat(d); err != nil {
		return // a step failed
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.safe[d] = true
}

func (l *scenario) unsafe(digests ...digest.Digest) {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, removed := l.images()
	for _, d := range digests {
		delete(l.safe, d)
		if d == removed.Digest {
			l.kept.v2 = false
		}
	}
}

// save writes a snapshot.
func (l *scenario) save() {
	pinned, removed := l.images()
	s := l.store
	if s.index.InMemory() { // a step failed
		return
	}
	now := snapshotState{v1: l.recorded("v1", pinned), v2: l.recorded("v2", removed)}
	now.pin = now.v1 && s.pins.Holds(pinned.Digest)
	err := s.writeSnapshot(l.t.Context())
	l.must(err)
	if err == nil {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.kept = now
	}
}

// recorded reports whether the index has all records that are needed to serve a tag.
func (l *scenario) recorded(tag string, img *image) bool {
	_, known := l.store.index.Children(img.Digest)
	_, noTag := l.store.index.Tag(team, tag)
	_, noMember := l.store.index.Member(team, img.Digest)
	return known && noTag == nil && noMember == nil
}

// checkAfter opens a store on the folder after a crash or failed steps. It checks the
// folder, that no safe blob is lost, and the content of pulls.
func (l *scenario) checkAfter(t *testing.T, dir string, safe []digest.Digest, bad digest.Digest, kept snapshotState) {
	t.Helper()
	if err := cachetest.CheckSnapshot(dir); err != nil {
		t.Error(err)
	}
	opts := tiny
	opts.steps.Around = newDiskModel(dir).take
	s, err := Open(dir, opts)
	if err != nil {
		t.Error(err)
		return
	}
	if bad != "" {
		if _, err := s.Scrub(context.WithoutCancel(t.Context()), nil); err != nil {
			t.Error(err)
		}
	}
	for _, d := range safe {
		if _, err := s.Stat(d); err != nil {
			t.Errorf("lost: %v", err)
		}
	}
	l.checkSnapshot(t, s, kept)
	pinned, removed := l.images()
	for tag, img := range map[string]*image{"v1": pinned, "v2": removed} {
		if m, _, err := s.Tag(t.Context(), team, tag, img.ask); err != nil || m.Digest != img.Digest {
			t.Errorf("tag %s: %s, %v", tag, m.Digest, err)
		}
	}
	for _, o := range l.blobs {
		again := &filltest.Origin{Content: o.Content, Digest: o.Digest}
		pull(t, s, again)
	}
	settle(t, s)
	closeStore(t, s)
}

// checkSnapshot checks that the store knows what its snapshot contains, whatever is left of
// the index.
func (l *scenario) checkSnapshot(t *testing.T, s *Store, kept snapshotState) {
	t.Helper()
	pinned, removed := l.images()
	for _, c := range []struct {
		kept bool
		tag  string
		img  *image
	}{{kept.v1, "v1", pinned}, {kept.v2, "v2", removed}} {
		if !c.kept {
			continue
		}
		if m, _, err := s.Tag(t.Context(), team, c.tag, dead); err != nil || m.Digest != c.img.Digest {
			t.Errorf("tag %s with the upstream dead: %s, %v", c.tag, m.Digest, err)
		}
	}
	loaded(t, s)
	if kept.pin && !s.pins.Holds(pinned.Digest) {
		t.Error("the pinned image is no longer pinned")
	}
}

// crashCase is a crash at one step.
type crashCase struct {
	name  string
	files leftover
	index string // a copy of the index at that step or at the one before, or "" for none
	safe  []digest.Digest
	bad   digest.Digest
	kept  snapshotState
}

func TestCrashLosesNothingDurable(t *testing.T) {
	seed := testSeed(t)
	random := rand.New(rand.NewPCG(seed, 0))
	maybe := func() bool { return random.IntN(2) == 0 }
	modes := []struct {
		name string
		crashMode
	}{
		{"everything survives", crashMode{survives: func() bool { return true }}},
		{"what was not synced is lost", crashMode{survives: func() bool { return false }}},
		{"some of it is lost, some torn", crashMode{survives: maybe, torn: random}},
	}

	dir, copies := t.TempDir(), t.TempDir()
	l := newScenario(t)
	l.model = newDiskModel(dir)
	var cases []crashCase
	index, steps := "", 0
	opts := tiny
	opts.steps.Around = l.model.around(nil, func(s disk.Step) {
		steps++
		earlier := index
		if now := filepath.Join(copies, fmt.Sprint(steps)); clone(filepath.Join(dir, "index"), now) == nil {
			index = now
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		for i, mode := range modes {
			if !sampled(steps+i, seed) {
				continue
			}
			indexes := []string{index, earlier, ""}
			cases = append(cases, crashCase{
				name:  fmt.Sprintf("step %d, %s %s, %s", steps, s.Op, filepath.Base(s.Path), mode.name),
				files: l.model.crash(s, mode.crashMode),
				index: indexes[random.IntN(len(indexes))],
				safe:  keys(l.safe),
				bad:   l.bad,
				kept:  l.kept,
			})
		}
	})
	l.store = openStore(t, dir, opts)
	loaded(l.t, l.store)
	l.run()
	closeStore(t, l.store)
	t.Logf("%d steps, %d crashes", steps, len(cases))
	inParallel(len(cases), func(i int) { l.inspect(t, cases[i]) })
}

// inspect creates the folder that a crash left, and checks it.
func (l *scenario) inspect(t *testing.T, w crashCase) {
	t.Run(w.name, func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "cache")
		err := w.files.build(dir)
		if err == nil && w.index != "" {
			err = clone(w.index, filepath.Join(dir, "index"))
		}
		if err != nil {
			t.Fatal(err)
		}
		l.checkAfter(t, dir, w.safe, w.bad, w.kept)
	})
}

func keys(m map[digest.Digest]bool) []digest.Digest {
	var all []digest.Digest
	for d := range m {
		all = append(all, d)
	}
	return slices.Clip(all)
}

func TestClientsDoNotSeeFailedSteps(t *testing.T) {
	type fault struct {
		name string
		fail func(n, at int) failure
	}
	faults := []fault{
		{"fails", func(n, at int) failure { return when(n == at, failsBefore) }},
		{"fails after it took effect", func(n, at int) failure { return when(n == at, failsAfter) }},
		{"and all later steps fail", func(n, at int) failure { return when(n >= at, failsBefore) }},
	}
	seed := testSeed(t)
	steps := runWithFault(t, func(int) failure { return works })
	t.Logf("%d steps", steps)
	inParallel(steps, func(i int) {
		for j, f := range faults {
			if at := i + 1; sampled(at+j, seed) {
				t.Run(fmt.Sprintf("step %d %s", at, f.name), func(t *testing.T) {
					runWithFault(t, func(n int) failure { return f.fail(n, at) })
				})
			}
		}
	})
}

func when(is bool, how failure) failure {
	if is {
		return how
	}
	return works
}

// runWithFault runs the scenario, and returns the number of its steps. fail decides about
// the n-th step, counted from 1.
func runWithFault(t *testing.T, fail func(n int) failure) (steps int) {
	dir := t.TempDir()
	l := newScenario(t)
	l.model = newDiskModel(dir)
	opts := tiny
	opts.steps.Around = l.model.around(func(disk.Step) failure { steps++; return fail(steps) }, nil)
	s, err := Open(dir, opts)
	if err == nil {
		l.store = s
		loaded(t, s)
		l.run()
		err = errors.Join(s.Close(), checkAccount(s, false))
		if l.bad == "" {
			err = errors.Join(err, cachetest.CheckBlobs(dir))
		}
	}
	l.must(err)
	l.checkAfter(t, dir, keys(l.safe), l.bad, l.kept)
	return steps
}

// sampled selects a third of the cases, and a twelfth if the tests must be quick, so that a
// test with three ways to fail tries one of them at each step. LARDER_CRASH_TESTS=all selects
// all cases.
func sampled(n int, seed uint64) bool {
	of := uint64(3)
	switch {
	case os.Getenv("LARDER_CRASH_TESTS") == "all":
		return true
	case testing.Short() || raceEnabled:
		of *= 4
	}
	return (uint64(n)+seed%of)%of == 0
}

// inParallel calls each with the numbers below n, up to four at a time.
func inParallel(n int, each func(i int)) {
	var group errgroup.Group
	group.SetLimit(4)
	for i := range n {
		group.Go(func() error { each(i); return nil })
	}
	_ = group.Wait() // each call returns nil
}
