package cache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/cache/fill/filltest"
)

// An hour of the case passes in a minute: the store has work to do each simulated second.
const (
	hour    = time.Minute
	coolFor = 72 * hour
)

// moving is a repository whose tag v1 moves. It goes on to serve earlier images by digest.
type moving struct {
	tag    *image
	images map[digest.Digest]*image
}

func (m *moving) move(img *image) {
	if m.images == nil {
		m.images = make(map[digest.Digest]*image)
	}
	m.tag, m.images[img.Digest] = img, img
}

func (m *moving) ask(ctx context.Context, reference string, head bool) (Manifest, error) {
	if reference == "v1" {
		return m.tag.ask(ctx, reference, head)
	}
	if img, ok := m.images[digest.Digest(reference)]; ok {
		return img.ask(ctx, reference, head)
	}
	return Manifest{}, fs.ErrNotExist
}

func cooling(first bool) Options {
	opts := Options{Tags: freshness}
	opts.Tags.StaleIfError = 1000 * time.Hour
	opts.Tags.Cooldown = func(_ Repository, tag string) Cooldown {
		if tag != "v1" {
			return Cooldown{}
		}
		return Cooldown{For: coolFor, First: first}
	}
	return opts
}

// wantTag fails the test unless the tag v1 stands for an image.
func wantTag(t *testing.T, s *Store, ask Ask, want *image) {
	t.Helper()
	if m, _, err := s.Tag(t.Context(), team, "v1", ask); err != nil || m.Digest != want.Digest {
		t.Errorf("got %s, %v; want %s", m.Digest, err, want.Digest)
	}
}

func TestCooldownCountsFromThePushWhereTheUpstreamTellsIt(t *testing.T) {
	for name, test := range map[string]struct {
		pushed time.Duration // before the tag is seen to have moved
		known  bool
		waits  time.Duration // until it is followed
	}{
		"pushed before":          {70 * hour, true, 2 * hour},
		"pushed long before":     {100 * hour, true, 0},
		"not told":               {70 * hour, false, coolFor},
		"by a clock that is off": {-5 * hour, true, coolFor},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				opts := cooling(false)
				asked := 0
				opts.Tags.Pushed = func(context.Context, Repository, digest.Digest) (time.Time, bool) {
					asked++
					return time.Now().Add(-test.pushed), test.known
				}
				s := openStore(t, t.TempDir(), opts)
				a, b := newImage("a"), newImage("b")
				var up moving
				up.move(a)
				wantTag(t, s, up.ask, a)
				pass(hour)
				up.move(b)
				if test.waits > 0 {
					wantTag(t, s, up.ask, a)
					pass(test.waits - hour)
					wantTag(t, s, up.ask, a)
					pass(2 * hour)
				}
				wantTag(t, s, up.ask, b)
				if asked != 1 {
					t.Errorf("it was asked %d times when the image was pushed", asked)
				}
			})
		})
	}
}

func TestMovedTagIsFollowedAfterItsCooldown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		s := openStore(t, dir, cooling(false))
		a, b := newImage("a"), newImage("b")
		var up moving
		up.move(a)
		wantTag(t, s, up.ask, a) // the first digest is not delayed
		pass(hour)
		up.move(b)
		wantTag(t, s, up.ask, a)
		if m, _, err := s.Manifest(t.Context(), team, b.Digest, up.ask); err != nil || m.Digest != b.Digest {
			t.Errorf("a pull by digest: %s, %v", m.Digest, err)
		}
		pass(coolFor / 2)
		wantTag(t, s, up.ask, a)
		closeStore(t, s)
		s = openStore(t, dir, cooling(false)) // the clock goes on
		pass(coolFor/2 - 1)
		wantTag(t, s, up.ask, a)
		pass(freshness.TTL)
		wantTag(t, s, dead, a) // it is followed only if the upstream still says so
		pass(freshness.TTL)
		wantTag(t, s, up.ask, b)
		if pending := s.index.Pending(team, "v1"); !pending.IsZero() {
			t.Errorf("left behind: %+v", pending)
		}
		pullTag(t, s, team, "other", a)
		pass(freshness.TTL)
		if m, _, err := s.Tag(t.Context(), team, "other", b.ask); err != nil || m.Digest != b.Digest {
			t.Errorf("a tag without a cooldown: %s, %v", m.Digest, err)
		}
	})
}

func TestDigestThatIsReplacedDuringItsCooldownIsSkipped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, t.TempDir(), cooling(false))
		a, b, c := newImage("a"), newImage("b"), newImage("c")
		var up moving
		up.move(a)
		wantTag(t, s, up.ask, a)
		pass(hour)
		up.move(b)
		wantTag(t, s, up.ask, a)
		pass(24 * hour)
		up.move(c)
		for range 3 * 24 { // until c is followed
			wantTag(t, s, up.ask, a)
			pass(hour)
		}
		wantTag(t, s, up.ask, c)

		up.move(b)
		pass(hour)
		wantTag(t, s, up.ask, c)
		up.move(c) // withdrawn
		pass(coolFor)
		wantTag(t, s, up.ask, c)
		if pending := s.index.Pending(team, "v1"); !pending.IsZero() {
			t.Errorf("left behind: %+v", pending)
		}
	})
}

func TestTagThatMovesDailyIsFollowedAfterFourCooldowns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		opts := cooling(false)
		opts.Log = slog.New(slog.NewTextHandler(&log, nil))
		s := openStore(t, t.TempDir(), opts)
		var up moving
		days := make([]*image, 20)
		for i := range days {
			days[i] = newImage(fmt.Sprint("day ", i))
		}
		up.move(days[0])
		wantTag(t, s, up.ask, days[0])
		for day := 1; day <= 12; day++ {
			pass(24 * hour)
			up.move(days[day])
			wantTag(t, s, up.ask, days[0])
		}
		if strings.Contains(log.String(), "no digest for as long") {
			t.Error("there was a warning before")
		}
		pass(24 * hour) // the first move was on day 1
		up.move(days[13])
		wantTag(t, s, up.ask, days[10])
		if n := strings.Count(log.String(), "no digest for as long"); n != 1 {
			t.Errorf("%d warnings:\n%s", n, &log)
		}
		pass(coolFor)
		wantTag(t, s, up.ask, days[13]) // it stayed at last
	})
}

// The moves of a tag that moves all the time take a bounded space, and the rule still holds.
func TestTagThatMovesAllTheTimeIsFollowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, t.TempDir(), cooling(false))
		var up moving
		first := newImage("first")
		up.move(first)
		wantTag(t, s, up.ask, first)
		followed := first.Digest
		for i := range 4*72 + 2 {
			pass(hour)
			up.move(newImage(fmt.Sprint(i)))
			m, _, err := s.Tag(t.Context(), team, "v1", up.ask)
			if err != nil {
				t.Fatal(err)
			}
			followed = m.Digest
			if n := len(s.index.Pending(team, "v1").Moves); n > 64 {
				t.Fatalf("%d moves are recorded", n)
			}
			if followed != first.Digest && i < 4*72 {
				t.Fatalf("it is followed after %d hours", i)
			}
		}
		if followed == first.Digest {
			t.Error("it is not followed")
		}
	})
}

func TestServedDigestIsKeptDuringACooldown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		opts := cooling(false)
		opts.Segment, opts.MaxSize, opts.LowWater = bounded.Segment, bounded.MaxSize, bounded.LowWater
		s := openStore(t, dir, opts)
		layer := filltest.New(1<<20, 1)
		a, b := newImage("a", layer), newImage("b")
		var up moving
		up.move(a)
		wantTag(t, s, up.ask, a)
		pullLayers(t, s, layer)
		pass(hour)
		up.move(b)
		wantTag(t, s, up.ask, a)
		for range 2 { // the second time after a restart without the index
			for i := range 12 {
				pullLayers(t, s, filltest.New(1<<20, uint64(10+i)))
			}
			evictAll(t, s)
			if img := listed(t, s)[team.String()+":v1"]; !img.Complete || img.Digest != a.Digest {
				t.Errorf("during the cooldown: %+v", img)
			}
			s.saveSnapshot(t.Context())
			closeStore(t, s)
			if err := os.RemoveAll(s.folder.Index()); err != nil {
				t.Fatal(err)
			}
			s = openStore(t, dir, opts)
			loaded(t, s)
		}
		pass(coolFor)
		wantTag(t, s, up.ask, b)
		evictAll(t, s)
		if _, err := s.Stat(layer.Digest); err == nil {
			t.Error("the layer is kept after the cooldown")
		}
	})
}

func TestFirstDigestMayWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		s := openStore(t, dir, cooling(true))
		var up moving
		a := newImage("a")
		up.move(a)
		refused := func() {
			t.Helper()
			_, _, err := s.Tag(t.Context(), team, "v1", up.ask)
			if !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), "2000-01-01T01:12:00Z") {
				t.Errorf("got %v", err)
			}
		}
		refused()
		if _, _, err := s.Manifest(t.Context(), team, a.Digest, up.ask); err != nil {
			t.Errorf("a pull by digest: %v", err)
		}
		pass(coolFor / 2)
		refused()
		closeStore(t, s)
		s = openStore(t, dir, cooling(true))
		pass(coolFor/2 - 1)
		refused()
		pass(freshness.Negative)
		wantTag(t, s, up.ask, a)
		if pending := s.index.Pending(team, "v1"); !pending.IsZero() {
			t.Errorf("left behind: %+v", pending)
		}
	})
}

func TestImageThatIsFollowedByHandHasTheSameCooldown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		opts := cooling(false)
		opts.Log = slog.New(slog.NewTextHandler(&log, nil))
		s := openStore(t, t.TempDir(), opts)
		a, b := newImage("a"), newImage("b")
		var up moving
		up.move(a)
		wantTag(t, s, up.ask, a)
		pass(hour)
		up.move(b)
		asked := func(method func(context.Context, Repository, string, Ask) (Manifest, error), want *image) {
			t.Helper()
			m, err := method(t.Context(), team, "v1", up.ask)
			if err != nil || m.Digest != want.Digest {
				t.Fatalf("asked: %s, %v", m.Digest, err)
			}
			if err := s.SetTag(team, "v1", m.Digest, time.Now()); err != nil {
				t.Fatal(err)
			}
			wantTag(t, s, up.ask, want)
		}
		asked(s.AskTag, a)
		pass(coolFor - 1)
		asked(s.AskTag, a)
		pass(1)
		asked(s.AskTag, b)
		up.move(a)
		asked(s.AskTag, b)
		now := func(ctx context.Context, repo Repository, tag string, ask Ask) (Manifest, error) {
			return s.AskTagNow(ctx, "root", repo, tag, ask)
		}
		asked(now, a)
		if n := strings.Count(log.String(), "overrides the cooldown"); n != 1 || !strings.Contains(log.String(), "user=root") {
			t.Errorf("%d lines in the log say who overrode the cooldown: %s", n, &log)
		}
		if pending := s.index.Pending(team, "v1"); !pending.IsZero() {
			t.Errorf("left behind: %+v", pending)
		}
	})
}

// Without its manifest, a digest cannot be served: the tag is followed.
func TestTagWhoseEarlierDigestIsLostIsFollowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, t.TempDir(), cooling(false))
		a, b := newImage("a"), newImage("b")
		wantTag(t, s, a.ask, a)
		evictAll(t, s)
		pass(hour)
		var up moving // it does not have a any more
		up.move(b)
		wantTag(t, s, up.ask, b)
	})
}

func TestImportEndsTheCooldownOfItsTag(t *testing.T) {
	for name, bundle := range map[string]string{"not pinned": "", "pinned": "bundle"} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				dir, opts := t.TempDir(), atSite
				opts.Tags = cooling(false).Tags
				s := openStore(t, dir, opts)
				a, b, imported := newImage("a"), newImage("b"), newImage("imported")
				var up moving
				up.move(a)
				wantTag(t, s, up.ask, a)
				pass(hour)
				up.move(b)
				wantTag(t, s, up.ask, a)
				i := startImport(t, s)
				newParcel(imported.Raw).put(t, i)
				err := i.Publish(t.Context(), ImportedImage{Repository: team, Tag: "v1", Digest: imported.Digest, Bundle: bundle})
				if err != nil {
					t.Fatal(err)
				}
				i.Close()
				if pending := s.index.Pending(team, "v1"); !pending.IsZero() {
					t.Errorf("left behind: %+v", pending)
				}
				if s.pins.Holds(a.Digest) || s.pins.Holds(imported.Digest) != (bundle != "") {
					t.Errorf("held: the image of the cooldown: %t, the imported one: %t", s.pins.Holds(a.Digest), s.pins.Holds(imported.Digest))
				}
			})
		})
	}
}

// The upstream says that the tag has moved, and fails to send the image that is served meanwhile.
func TestMoveIsNotedThoughTheEarlierImageCannotBeHad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, t.TempDir(), cooling(false))
		a, b := newImage("a"), newImage("b")
		var up moving
		up.move(a)
		wantTag(t, s, up.ask, a)
		damage(t, s, a.Digest)
		defer damage(t, s, a.Digest) // as it was
		s.memory.forget(a.Digest)
		pass(hour)
		up.move(b)
		a.fail(filltest.ErrBroken)
		if _, err := s.AskTag(t.Context(), team, "v1", up.ask); !errors.Is(err, filltest.ErrBroken) {
			t.Errorf("asked: %v", err)
		}
		if pending := s.index.Pending(team, "v1"); len(pending.Moves) != 1 {
			t.Errorf("pending: %+v", pending)
		}
	})
}
