package cache

import (
	"context"
	"errors"
	"fmt"
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

// The tests of this file take a store through all that changes its folder, and
// have it crash, or have a step fail, at each step in turn.

// errDisk is why a step fails. It does not say that the disk as a whole is ill, as
// EIO would: then nothing that follows would be tried.
var errDisk = errors.New("the disk failed by the test")

// failure is how a step goes.
type failure int

const (
	works failure = iota
	failsBefore
	failsAfter // although it took effect
)

// tiny makes a blob of some KiB one of several segments, and gives up at once.
var tiny = Options{
	Segment:     4 << 10,
	Connections: 2,
	ScrubEvery:  -1,
	Tags:        Freshness{StaleIfError: time.Hour},
	Retry:       Retry{First: 1, Later: 1},
	Log:         slog.New(slog.DiscardHandler),
}

// life is what happens to a store: fills, one that breaks off and is resumed,
// manifests, tags, a pin, evictions of blobs and of a partial, a removal,
// snapshots of the index, and a scrub that finds damage. Where steps fail, clients
// notice nothing.
type life struct {
	t       *testing.T
	store   *Store
	platter *platter
	blobs   []*filltest.Origin

	mu   sync.Mutex             // guards what follows
	safe map[digest.Digest]bool // what no crash may take
	bad  digest.Digest          // damaged, and perhaps not found yet
	kept snapshotLife
}

// snapshotLife is what a snapshot has that is durable: it is known without an
// index.
type snapshotLife struct {
	v1, v2, pin bool
}

func newLife(t *testing.T) *life {
	l := &life{t: t, safe: make(map[digest.Digest]bool)}
	for i := range 6 {
		l.blobs = append(l.blobs, filltest.New(10<<10+i*1000, uint64(i)))
	}
	return l
}

// images are one of the first two blobs, and one of the first and the fourth.
func (l *life) images() (pinned, removed *image) {
	return newImage("pinned", l.blobs[:2]...), newImage("removed", l.blobs[0], l.blobs[3])
}

func (l *life) lead() {
	pinned, removed := l.images()
	l.tag("v1", pinned)
	for _, o := range l.blobs[:4] {
		l.pull(o)
	}
	l.save()
	l.must(l.store.Pin(team, "v1"))

	l.breakOff(l.blobs[4])
	l.pull(l.blobs[4])
	l.breakOff(l.blobs[5])
	l.evict(l.blobs[5].Digest) // a partial
	l.evict(l.blobs[2].Digest)

	l.tag("v2", removed)
	l.pull(l.blobs[3])
	l.save()
	l.unsafe(removed.Digest, l.blobs[3].Digest)
	if _, err := l.store.Stat(pinned.Digest); err != nil { // a step failed: then nobody else needs the blob
		l.unsafe(l.blobs[0].Digest)
	}
	_, err := l.store.Remove(team, "v2")
	l.must(err)

	l.scrub(l.blobs[4].Digest)
	l.pull(l.blobs[4])
	l.pull(l.blobs[2])
}

// must fails the test for an error that no step's failure explains.
func (l *life) must(err error) {
	l.t.Helper()
	if err != nil && !errors.Is(err, errDisk) {
		l.t.Error(err)
	}
}

func (l *life) pull(o *filltest.Origin) {
	l.t.Helper()
	pull(l.t, l.store, o)
	settle(l.store)
	l.isSafe(o.Digest)
}

func (l *life) tag(tag string, img *image) {
	l.t.Helper()
	m, _, err := l.store.Tag(l.t.Context(), team, tag, img.ask)
	if err != nil || m.Digest != img.Digest {
		l.t.Errorf("tag %s: %s, %v", tag, m.Digest, err)
	}
	l.isSafe(img.Digest)
}

// breakOff leaves a partial.
func (l *life) breakOff(o *filltest.Origin) {
	l.t.Helper()
	o.Plan = func(_ int, r Range) filltest.Act {
		if r.Off >= tiny.Segment {
			return filltest.Act{Err: filltest.ErrBroken}
		}
		return filltest.Act{}
	}
	blob, err := l.store.Open(l.t.Context(), o.Digest, 0, o.Fetch)
	if err == nil {
		blob.Close()
	} else if !errors.Is(err, filltest.ErrBroken) {
		l.t.Error(err)
	}
	settle(l.store)
	o.Plan = nil
}

func (l *life) evict(d digest.Digest) {
	l.unsafe(d)
	l.must(evictOne(l.store, d, blobs.ReasonUnused))
}

// scrub has a scrub find damage.
func (l *life) scrub(d digest.Digest) {
	l.t.Helper()
	if _, err := l.store.Stat(d); err != nil {
		return // some step failed
	}
	l.unsafe(d)
	l.mu.Lock()
	l.bad = d
	l.mu.Unlock()
	l.must(l.platter.damage(l.store.folder.Blob(d), func(content []byte) { content[100] ^= 1 }))
	_, err := l.store.Scrub(l.t.Context(), nil)
	l.must(err)
	if _, err := os.Lstat(l.store.folder.Blob(d)); err == nil {
		return // some step failed: it is not served any more, but a restart forgets why
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.bad = ""
}

// isSafe notes that no crash may take a blob, if it is kept.
func (l *life) isSafe(d digest.Digest) {
	if _, err := l.store.Stat(d); err != nil {
		return // some step failed
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.safe[d] = true
}

func (l *life) unsafe(digests ...digest.Digest) {
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
func (l *life) save() {
	pinned, removed := l.images()
	s := l.store
	if s.index.InMemory() { // some step failed
		return
	}
	now := snapshotLife{v1: l.recorded("v1", pinned), v2: l.recorded("v2", removed)}
	now.pin = now.v1 && s.pins.Holds(pinned.Digest)
	err := s.writeSnapshot(l.t.Context())
	l.must(err)
	if err == nil {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.kept = now
	}
}

// recorded reports whether the index has all that it takes to serve a tag.
func (l *life) recorded(tag string, img *image) bool {
	_, known := l.store.index.Children(img.Digest)
	_, noTag := l.store.index.Tag(team, tag)
	_, noMember := l.store.index.Member(team, img.Digest)
	return known && noTag == nil && noMember == nil
}

// after opens a store on what a crash left, or failed steps, and checks that it
// is in order, that nothing is lost that must not be, and that what is pulled is
// right.
func (l *life) after(t *testing.T, dir string, safe []digest.Digest, bad digest.Digest, kept snapshotLife) {
	t.Helper()
	if err := cachetest.CheckSnapshot(dir); err != nil {
		t.Error(err)
	}
	opts := tiny
	opts.steps.Around = newPlatter(dir).take
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
	l.afterSnapshot(t, s, kept)
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
	settle(s)
	closeStore(t, s)
}

// afterSnapshot checks that what a snapshot has is known, whatever there is of the
// index.
func (l *life) afterSnapshot(t *testing.T, s *Store, kept snapshotLife) {
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
	<-s.blobs.Loaded()
	if kept.pin && !s.pins.Holds(pinned.Digest) {
		t.Error("what was pinned is not any more")
	}
}

// wrecked is a crash at one step.
type wrecked struct {
	name  string
	files wreck
	index string // a copy of the index as it was then, or before, or "" for none
	safe  []digest.Digest
	bad   digest.Digest
	kept  snapshotLife
}

func TestNoCrashCostsWhatIsDurable(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %#x", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	maybe := func() bool { return random.IntN(2) == 0 }
	modes := []struct {
		name string
		crashing
	}{
		{"nothing is lost", crashing{survives: func() bool { return true }}},
		{"all is lost that was not synced", crashing{survives: func() bool { return false }}},
		{"some is lost, some torn", crashing{survives: maybe, torn: random}},
	}

	dir, copies := t.TempDir(), t.TempDir()
	l := newLife(t)
	l.platter = newPlatter(dir)
	var wrecks []wrecked
	index, steps := "", 0
	opts := tiny
	opts.steps.Around = l.platter.around(nil, func(s disk.Step) {
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
			wrecks = append(wrecks, wrecked{
				name:  fmt.Sprintf("step %d, %s %s, %s", steps, s.Op, filepath.Base(s.Path), mode.name),
				files: l.platter.crash(s, mode.crashing),
				index: indexes[random.IntN(len(indexes))],
				safe:  keys(l.safe),
				bad:   l.bad,
				kept:  l.kept,
			})
		}
	})
	l.store = openStore(t, dir, opts)
	<-l.store.blobs.Loaded()
	l.lead()
	closeStore(t, l.store)
	t.Logf("%d steps, %d crashes", steps, len(wrecks))
	inParallel(len(wrecks), func(i int) { l.inspect(t, wrecks[i]) })
}

// inspect builds what a crash left and looks at it.
func (l *life) inspect(t *testing.T, w wrecked) {
	t.Run(w.name, func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "cache")
		err := w.files.build(dir)
		if err == nil && w.index != "" {
			err = clone(w.index, filepath.Join(dir, "index"))
		}
		if err != nil {
			t.Fatal(err)
		}
		l.after(t, dir, w.safe, w.bad, w.kept)
	})
}

func keys(m map[digest.Digest]bool) []digest.Digest {
	var all []digest.Digest
	for d := range m {
		all = append(all, d)
	}
	return slices.Clip(all)
}

func TestNoFailedStepIsNoticedByAClient(t *testing.T) {
	type fault struct {
		name string
		fail func(n, at int) failure
	}
	faults := []fault{
		{"fails", func(n, at int) failure { return when(n == at, failsBefore) }},
		{"fails though it took effect", func(n, at int) failure { return when(n == at, failsAfter) }},
		{"and all that follow fail", func(n, at int) failure { return when(n >= at, failsBefore) }},
	}
	seed := rand.Uint64()
	steps := leadWithFault(t, func(int) failure { return works })
	t.Logf("seed %#x, %d steps", seed, steps)
	inParallel(steps, func(i int) {
		for j, f := range faults {
			if at := i + 1; sampled(at+j, seed) {
				t.Run(fmt.Sprintf("step %d %s", at, f.name), func(t *testing.T) {
					leadWithFault(t, func(n int) failure { return f.fail(n, at) })
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

// leadWithFault takes a store through its life with steps failing, counted from
// 1, and returns how many there were.
func leadWithFault(t *testing.T, fail func(n int) failure) (steps int) {
	dir := t.TempDir()
	l := newLife(t)
	l.platter = newPlatter(dir)
	opts := tiny
	opts.steps.Around = l.platter.around(func(disk.Step) failure { steps++; return fail(steps) }, nil)
	s, err := Open(dir, opts)
	if err == nil {
		l.store = s
		<-s.blobs.Loaded()
		l.lead()
		err = errors.Join(s.Close(), checkAccount(s, false))
		if l.bad == "" {
			err = errors.Join(err, cachetest.CheckBlobs(dir))
		}
	}
	l.must(err)
	l.after(t, dir, keys(l.safe), l.bad, l.kept)
	return steps
}

// sampled picks one way for each step to go wrong, out of three, and of these a
// fourth where tests must be quick. With LARDER_CRASH_TESTS=all it is all of them.
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

// inParallel calls each for the numbers below n, several at a time.
func inParallel(n int, each func(i int)) {
	var group errgroup.Group
	group.SetLimit(4)
	for i := range n {
		group.Go(func() error { each(i); return nil })
	}
	_ = group.Wait() // nobody returns an error
}
