package cache

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/larder-registry/larder/cache/blobs"
	"github.com/larder-registry/larder/cache/fill/filltest"
)

// touched returns the recorded time of an image of team.
func touched(t *testing.T, s *Store, img *image) time.Time {
	t.Helper()
	all, err := s.Holdings()
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range all[team] {
		if h.Digest == img.Digest {
			return h.Touched
		}
	}
	t.Fatalf("the repository does not contain %s", img.Digest)
	return time.Time{}
}

func TestTouchIsRecordedAsLongAsItsImage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		s := openStore(t, dir, Options{})
		img, layer := newImage("a"), filltest.New(100, 1)
		pullTag(t, s, team, "v1", img, layer)
		if at := touched(t, s, img); !at.Equal(time.Now()) {
			t.Errorf("a new image was touched at %v, want the time when it was fetched", at)
		}
		pass(2 * time.Minute)
		want := time.Now()
		if err := s.Touched(team, img.Digest, want); err != nil {
			t.Fatal(err)
		}
		closeStore(t, s)
		s = openStore(t, dir, Options{})
		if at := touched(t, s, img); !at.Equal(want) {
			t.Errorf("after a restart it was touched at %v, want %v", at, want)
		}
		for name, forget := range map[string]func() error{
			"removed": func() error {
				_, err := s.Remove(team, "v1")
				return err
			},
			"evicted": func() error {
				return evictOne(s, img.Digest, blobs.ReasonRemoved)
			},
		} {
			if err := forget(); err != nil {
				t.Fatal(err)
			}
			if left, err := s.index.Touches(); err != nil || len(left) != 0 {
				t.Errorf("%s: %v, %v", name, left, err)
			}
			pullTag(t, s, team, "v1", img)
			if err := s.Touched(team, img.Digest, want); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// A machine may sleep for hours, so that no batch of uses is written meanwhile.
func TestUseIsRecordedAfterALongPause(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	s := openStore(t, t.TempDir(), Options{Now: func() time.Time { return now }})
	img := newImage("a")
	pullTag(t, s, team, "v1", img)
	now = now.Add(10 * time.Hour)
	resolve(t, s, img.ask, Hit, img)
	all, err := s.Holdings()
	if err != nil || len(all[team]) != 1 || !all[team][0].Used.Equal(now) {
		t.Errorf("the repository contains %+v, %v; want one image used at %v", all[team], err, now)
	}
}
