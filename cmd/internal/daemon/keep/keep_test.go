package keep_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/larder-registry/larder/cache"
	"github.com/larder-registry/larder/cmd/internal/daemon/bring/bringtest"
	"github.com/larder-registry/larder/cmd/internal/daemon/keep"
	"github.com/larder-registry/larder/config"
	"github.com/larder-registry/larder/upstream/link"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// index is what the index takes of the cache, in bytes.
const index = 49 << 20

func TestKeptImageIsFetchedFollowedAndPinned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, cache.Options{}, group("v1", "v2"))
		first := r.AddImage("v1", "a", 100_000, "linux/amd64", "linux/arm64")
		r.run()
		defer r.end()
		r.want("v1", keep.Whole, first.Root.Digest)
		r.want("v2", keep.Missing, "")
		if _, _, attended := r.Counts(); attended > 0 {
			t.Errorf("%d blobs were fetched as for a client that waits", attended)
		}
		if !r.isPinned("v1") {
			t.Error("it is not pinned")
		}
		second := r.AddImage("v1", "b", 100_000, "linux/amd64")
		other := r.AddImage("v2", "c", 100_000, "linux/amd64")
		r.want("v1", keep.Whole, first.Root.Digest) // it is asked every hour
		r.pass(time.Hour)
		r.want("v1", keep.Whole, second.Root.Digest)
		r.want("v2", keep.Whole, other.Root.Digest)
		if pins, err := r.Store.Pins(); err != nil || len(pins) != 2 {
			t.Errorf("pins: %v, %v; want those of the two tags", pins, err)
		}
	})
}

// The new image comes over a link that brings a third of it each night and is cut in between,
// with a restart in the second night.
func TestOldImageIsServedUntilTheNewOneCameInThreeNights(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const size = 3 << 20
		r := newRig(t, cache.Options{MaxSize: index + 7<<20}, group("v1"))
		first := r.AddImage("v1", "a", size, "linux/amd64")
		r.run()
		defer func() { r.end() }()
		r.want("v1", keep.Whole, first.Root.Digest)
		before, _, _ := r.Counts()
		second := r.AddImage("v1", "b", size, "linux/amd64")
		for night := range 3 {
			budget := int64(size/3 + 10_000)
			if night == 2 {
				budget = -1
			}
			r.SetBudget(budget)
			r.pass(2 * time.Hour)
			if night == 2 {
				break
			}
			r.want("v1", keep.Old, first.Root.Digest)
			if night == 1 {
				r.restart()
				r.want("v1", keep.Whole, first.Root.Digest) // nobody can say that there is another one
			}
			r.SetDown(true)
			r.pass(3 * time.Hour)
			if d, err := r.Pull("v1", 0); err != nil || d != first.Root.Digest {
				t.Errorf("night %d: pulled %s, %v", night, d, err)
			}
		}
		r.want("v1", keep.Whole, second.Root.Digest)
		after, _, _ := r.Counts()
		if sent := after - before; sent > size+200_000 {
			t.Errorf("%d bytes were sent for an image of %d", sent, size)
		}
		if _, err := r.Store.Stat(first.Layers[0].Digest); err != nil {
			t.Error("the old image was evicted without need")
		}
		if r.isPinned(first.Root.Digest.String()) {
			t.Error("the old image is still pinned")
		}
	})
}

// The half of the new image is not lost when the site is at sea and its node restarts: clients
// pull more than fits, and later the rest comes alone.
func TestHalfFetchedImageIsHeldAfterARestartWithoutItsUpstream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const size = 2 << 20
		r := newRig(t, cache.Options{MaxSize: index + 8<<20}, group("v1"))
		first := r.AddImage("v1", "a", size, "linux/amd64")
		r.run()
		defer func() { r.end() }()
		second := r.AddImage("v1", "b", size, "linux/amd64")
		r.SetBudget(size - 100_000)
		r.pass(2 * time.Hour)
		r.want("v1", keep.Old, first.Root.Digest)
		r.sea.Store(true)
		r.restart()
		r.SetBudget(-1)
		if !r.isPinned(second.Root.Digest.String()) {
			t.Fatal("it is not pinned")
		}
		for _, tag := range []string{"v2", "v3", "v4", "v5"} {
			r.AddImage(tag, tag, size, "linux/amd64")
			if _, err := r.Pull(tag, 0); err != nil {
				t.Fatal(err)
			}
			r.pass(time.Minute)
		}
		before, _, _ := r.Counts()
		r.sea.Store(false)
		r.keeper.TryAgain()
		synctest.Wait()
		r.want("v1", keep.Whole, second.Root.Digest)
		if after, _, _ := r.Counts(); after-before > size/2 {
			t.Errorf("%d bytes were sent for the rest of it", after-before)
		}
		if r.isPinned(second.Root.Digest.String()) {
			t.Error("it is pinned beside its tag though the tag names it")
		}
	})
}

func TestOldImageStaysIfBothDoNotFit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, cache.Options{MaxSize: index + 5<<20}, group("v1"))
		first := r.AddImage("v1", "a", 3<<20, "linux/amd64")
		r.run()
		defer r.end()
		second := r.AddImage("v1", "b", 3<<20, "linux/amd64")
		r.pass(3 * time.Hour)
		r.want("v1", keep.TooLarge, first.Root.Digest)
		s := r.keeper.Status(bringtest.Name("v1").String())
		if s.Next != second.Root.Digest || !strings.Contains(s.Error, "max_size") {
			t.Errorf("status %+v", s)
		}
		if n := strings.Count(r.log.String(), "could not be fetched"); n != 1 {
			t.Errorf("%d lines in the log: %s", n, &r.log)
		}
		third := r.AddImage("v1", "c", 1<<20, "linux/amd64")
		r.pass(2 * time.Hour)
		r.want("v1", keep.Whole, third.Root.Digest)
	})
}

func TestKeptImageOutlivesItsUpstream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, cache.Options{}, group("v1"))
		image := r.AddImage("v1", "a", 100_000, "linux/amd64")
		r.run()
		defer func() { r.end() }()
		r.Remove("v1")
		r.pass(2 * time.Hour)
		r.want("v1", keep.Gone, image.Root.Digest)
		r.SetDown(true)
		r.restart()
		r.pass(5 * time.Hour) // beyond tags.stale_if_error
		r.want("v1", keep.Whole, image.Root.Digest)
	})
}

func TestOfflineUpstreamIsNotAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, cache.Options{}, group("v1"))
		first := r.AddImage("v1", "a", 100_000, "linux/amd64")
		r.run()
		defer r.end()
		r.sea.Store(true)
		second := r.AddImage("v1", "b", 100_000, "linux/amd64")
		_, before, _ := r.Counts()
		r.pass(5 * time.Hour)
		r.want("v1", keep.Whole, first.Root.Digest)
		if _, asked, _ := r.Counts(); asked != before || strings.Contains(r.log.String(), "WARN") {
			t.Errorf("%d questions, and in the log: %s", asked-before, &r.log)
		}
		r.sea.Store(false)
		r.keeper.TryAgain()
		synctest.Wait()
		r.want("v1", keep.Whole, second.Root.Digest)
	})
}

// With at_once clients get what the upstream says, and the old image is held until the new one
// is whole: it is served once the upstream is silent.
func TestTagThatMovesAtOnceFallsBackToTheOldImage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := group("v1")
		g.Switch = config.KeepAtOnce
		r := newRig(t, cache.Options{}, g)
		first := r.AddImage("v1", "a", 1<<20, "linux/amd64")
		r.run()
		defer r.end()
		second := r.AddImage("v1", "b", 1<<20, "linux/amd64")
		r.SetBudget(500_000)
		r.pass(2 * time.Minute)
		if d, err := r.Pull("v1", 0); err == nil || d != second.Root.Digest {
			t.Errorf("pulled %s, %v; want to fail with the new image", d, err)
		}
		r.pass(time.Minute)
		if d, err := r.Pull("v1", 0); err != nil || d != first.Root.Digest {
			t.Errorf("pulled %s, %v; want the old image", d, err)
		}
		r.SetBudget(-1)
		r.pass(2 * time.Hour)
		r.want("v1", keep.Whole, second.Root.Digest)
	})
}

// What is kept by its digest has no tag by which the store would know it.
// The tag names the image that is kept by its digest, too. Either pin stays when the other one is released.
func TestNextImageThatWasReplacedMakesWayForItsSuccessor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, cache.Options{MaxSize: index + 7<<20}, group("v1"))
		first := r.AddImage("v1", "a", 3<<20, "linux/amd64")
		r.run()
		defer r.end()
		r.AddImage("v1", "b", 3<<20, "linux/amd64")
		r.SetBudget(1 << 20)
		r.pass(time.Hour)
		r.want("v1", keep.Old, first.Root.Digest)
		third := r.AddImage("v1", "c", 3<<20, "linux/amd64") // fits beside one of them
		r.SetBudget(-1)
		r.pass(3 * time.Hour)
		r.want("v1", keep.Whole, third.Root.Digest)
		if pins, err := r.Store.Pins(); err != nil || len(pins) != 1 {
			t.Errorf("pins: %v, %v; want that of the tag", pins, err)
		}
	})
}

func TestImageThatNeverFitStaysTooLarge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, cache.Options{MaxSize: index + 3<<20}, group("v1"))
		r.AddImage("v1", "a", 4<<20, "linux/amd64")
		r.run()
		defer r.end()
		for range 3 {
			r.want("v1", keep.TooLarge, "")
			r.pass(2 * time.Hour)
		}
		r.sea.Store(true)
		r.pass(2 * time.Hour)
		r.want("v1", keep.TooLarge, "")
		if s := r.keeper.Status(bringtest.Name("v1").String()); !strings.Contains(s.Error, "max_size") {
			t.Errorf("status %+v", s)
		}
		if n := strings.Count(r.log.String(), "could not be fetched"); n != 1 {
			t.Errorf("%d lines in the log: %s", n, &r.log)
		}
	})
}

// The link opens at an hour of the day, and not up to an hour later.
func TestKeptImageIsFetchedWhenTheHoursBegin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, cache.Options{}, group("v1"))
		image := r.AddImage("v1", "a", 1000, "linux/amd64")
		opens := time.Now().Add(90 * time.Minute)
		r.shut = func() error {
			if time.Now().Before(opens) {
				return &link.ClosedError{Until: opens}
			}
			return nil
		}
		r.run()
		defer r.end()
		r.pass(89 * time.Minute)
		r.want("v1", keep.Missing, "")
		r.pass(61 * time.Second)
		r.want("v1", keep.Whole, image.Root.Digest)
	})
}
