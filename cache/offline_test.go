package cache

import (
	"context"
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/larder-registry/larder/cache/fill/filltest"
)

// errPostponed is the error of an upstream that is offline.
type errPostponed struct{ error }

func (errPostponed) Postponed() bool { return true }

// sea is where an upstream is offline at times.
type sea struct {
	now  bool
	last time.Time
}

func (s *sea) offline(string) (now bool, last time.Time) { return s.now, s.last }

func TestTagsOfAnOfflineUpstreamDoNotAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ship := new(sea)
		tags := freshness
		tags.Offline = ship.offline
		s := openStore(t, t.TempDir(), Options{Tags: tags})
		img := newImage("a")
		resolve(t, s, img.ask, Miss, img)
		img.questions()
		ship.now = true
		pass(2 * freshness.StaleIfError)
		resolve(t, s, img.ask, Hit, img)
		if m, ok := s.TagHere(team, "v1"); !ok || m.Digest != img.Digest {
			t.Error("the way of a hit does not have the tag")
		}
		wantAsked(t, img)

		ship.now, ship.last = false, time.Now()
		resolve(t, s, dead, Stale, img) // the link is back, and bad
		pass(freshness.StaleIfError - time.Second)
		resolve(t, s, dead, Stale, img)
		pass(time.Second)
		if _, _, err := s.Tag(t.Context(), team, "v1", dead); err == nil {
			t.Error("a tag is served that was not confirmed for StaleIfError since its upstream was offline")
		}
		resolve(t, s, img.ask, Hit, img)
		wantAsked(t, img, "HEAD v1")
	})
}

func TestMissOfAnOfflineUpstreamIsNotRemembered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMeter()
		s := openStore(t, t.TempDir(), Options{Tags: freshness, Meter: m})
		img, o := newImage("a"), filltest.New(1000, 1)
		offline := errPostponed{errors.New("the upstream is offline")}
		img.fail(offline)
		if _, _, err := s.Tag(t.Context(), team, "v1", img.ask); !errors.As(err, new(errPostponed)) {
			t.Errorf("a tag: %v", err)
		}
		if _, _, err := s.Manifest(t.Context(), team, img.Digest, img.ask); !errors.As(err, new(errPostponed)) {
			t.Errorf("a manifest: %v", err)
		}
		if _, err := s.Holds(t.Context(), team, o.Digest, func(context.Context) (int64, error) { return 0, offline }); !errors.As(err, new(errPostponed)) {
			t.Errorf("a blob: %v", err)
		}
		if n := m.value(t, "larder.tag.revalidations"); n != 0 {
			t.Errorf("%d checks of tags are counted, though nothing was asked", n)
		}
		img.fail(nil) // online again
		resolve(t, s, img.ask, Miss, img)
		if _, err := s.Holds(t.Context(), team, o.Digest, func(context.Context) (int64, error) { return 1000, nil }); err != nil {
			t.Error(err)
		}
	})
}

// The upstream goes offline in the middle of a blob, and later online.
func TestFillOfAnOfflineUpstreamEndsAtOnceAndIsResumed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMeter()
		s := openStore(t, t.TempDir(), Options{Meter: m})
		o := filltest.New(4<<20, 1)
		offline := false
		o.Plan = func(int, Range) filltest.Act {
			if offline {
				return filltest.Act{Err: errPostponed{errors.New("the upstream is offline")}}
			}
			offline = true
			return filltest.Act{Cut: 1 << 20}
		}
		began := time.Now()
		blob := open(t, s, o)
		_, err := io.Copy(io.Discard, blob)
		blob.Close()
		if !errors.As(err, new(errPostponed)) {
			t.Errorf("the client gets %v", err)
		}
		if took := time.Since(began); took > time.Second {
			t.Errorf("the client waited %v", took)
		}
		settle(t, s)
		if by := m.by(t, "larder.fills", "result"); by["stopped"] != 1 || by["upstream"] != 0 {
			t.Errorf("the fill counts as %v", by)
		}
		before := len(o.Requests())
		o.Plan = nil
		pull(t, s, o)
		for _, r := range o.Requests()[before:] {
			if r.Off < 1<<20 {
				t.Errorf("%+v was asked for again, of which a part was here", r)
			}
		}
	})
}
