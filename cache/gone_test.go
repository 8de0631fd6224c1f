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

	"github.com/larder-registry/larder/cache/fill/filltest"
)

// askGone is an upstream that has no such image.
func askGone(context.Context, string, bool) (Manifest, error) {
	return Manifest{}, fmt.Errorf("the upstream has no such image: %w", fs.ErrNotExist)
}

// wantGone fails the test unless an image is listed as gone upstream since then.
func wantGone(t *testing.T, s *Store, since time.Time) {
	t.Helper()
	loaded(t, s)
	if img := listed(t, s)[team.String()+":v1"]; !img.Gone.Equal(since) {
		t.Errorf("listed as gone since %v, want %v", img.Gone, since)
	}
	st, err := s.Stats()
	if err != nil || (st.Gone == 1) == since.IsZero() {
		t.Errorf("%d images are gone upstream, %v", st.Gone, err)
	}
}

func TestPinnedTagOutlivesItsUpstream(t *testing.T) {
	for _, configured := range []bool{false, true} {
		t.Run(fmt.Sprintf("configured=%t", configured), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				dir := t.TempDir()
				var log bytes.Buffer
				opts := bounded
				opts.Tags, opts.Log = freshness, slog.New(slog.NewTextHandler(&log, nil))
				if configured {
					opts.Pin = func(image string) bool { return image == team.String()+":v1" }
				}
				s := openStore(t, dir, opts)
				layer := filltest.New(1<<20, 1)
				img := newImage("a", layer)
				pullTag(t, s, team, "v1", img, layer)
				if !configured {
					if err := s.Pin(team, "v1"); err != nil {
						t.Fatal(err)
					}
				}
				wantGone(t, s, time.Time{})
				pass(freshness.TTL)
				since := time.Now()
				resolve(t, s, askGone, Stale, img)
				resolve(t, s, dead, Stale, img) // it is not asked again for a while
				pass(freshness.TTL)
				resolve(t, s, askGone, Stale, img)
				for range 2 { // the second time after a restart
					for i := range 12 {
						pullLayers(t, s, filltest.New(1<<20, uint64(10+i)))
					}
					evictAll(t, s)
					if img := listed(t, s)[team.String()+":v1"]; !img.Complete {
						t.Errorf("it is not complete: %+v", img)
					}
					wantGone(t, s, since)
					closeStore(t, s)
					s = openStore(t, dir, opts)
					resolve(t, s, askGone, Stale, img) // also before the folder is loaded
					pass(2 * freshness.StaleIfError)
					resolve(t, s, dead, Stale, img) // however long ago it was confirmed
				}
				if n := strings.Count(log.String(), "does not have a tag any more"); n != 1 {
					t.Errorf("%d lines say that it is gone:\n%s", n, &log)
				}
			})
		})
	}
}

func TestTagThatIsGoneMayReturn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		var log bytes.Buffer
		opts := Options{Tags: freshness, Log: slog.New(slog.NewTextHandler(&log, nil))}
		s := openStore(t, dir, opts)
		img, moved := newImage("a"), newImage("b")
		resolve(t, s, img.ask, Miss, img)
		loaded(t, s)
		if err := s.Pin(team, "v1"); err != nil {
			t.Fatal(err)
		}
		pass(freshness.TTL)
		resolve(t, s, askGone, Stale, img)
		pass(freshness.TTL)
		resolve(t, s, moved.ask, Miss, moved)
		resolve(t, s, dead, Hit, moved)
		wantGone(t, s, time.Time{})
		closeStore(t, s)
		s = openStore(t, dir, opts)
		resolve(t, s, dead, Hit, moved)
		wantGone(t, s, time.Time{})
		if n := strings.Count(log.String(), "has a tag again"); n != 1 {
			t.Errorf("%d lines say that it is back:\n%s", n, &log)
		}
	})
}

func TestTagThatIsGoneIsForgottenAfterItsUnpin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, t.TempDir(), Options{Tags: freshness})
		img := newImage("a")
		resolve(t, s, img.ask, Miss, img)
		loaded(t, s)
		if err := s.Pin(team, "v1"); err != nil {
			t.Fatal(err)
		}
		pass(freshness.TTL)
		resolve(t, s, askGone, Stale, img)
		if err := s.Unpin(team, "v1"); err != nil {
			t.Fatal(err)
		}
		pass(freshness.Negative)
		if _, _, err := s.Tag(t.Context(), team, "v1", askGone); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("got %v", err)
		}
		if tags, err := s.Tags(team); err != nil || len(tags) > 0 {
			t.Errorf("tags %v, %v", tags, err)
		}
		if pending := s.index.Pending(team, "v1"); !pending.IsZero() {
			t.Errorf("left behind: %+v", pending)
		}
	})
}

func TestTagThatIsGoneIsServedForStaleIfGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		opts := Options{Tags: freshness}
		opts.Tags.StaleIfGone = 10 * time.Minute
		s := openStore(t, dir, opts)
		img := newImage("a")
		resolve(t, s, img.ask, Miss, img)
		pass(freshness.TTL)
		begin := time.Now()
		resolve(t, s, askGone, Stale, img)
		closeStore(t, s)
		s = openStore(t, dir, opts)
		pass(opts.Tags.StaleIfGone - time.Since(begin) - 1)
		resolve(t, s, dead, Stale, img)
		resolve(t, s, askGone, Stale, img)
		wantGone(t, s, begin)
		pass(max(freshness.Negative, freshness.TTL))
		if _, _, err := s.Tag(t.Context(), team, "v1", dead); !errors.Is(err, filltest.ErrBroken) {
			t.Errorf("the upstream fails afterwards: %v", err)
		}
		if _, _, err := s.Tag(t.Context(), team, "v1", askGone); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the upstream says that it is gone afterwards: %v", err)
		}
		if tags, err := s.Tags(team); err != nil || len(tags) > 0 {
			t.Errorf("tags %v, %v", tags, err)
		}
	})
}

// An earlier release leaves the record that says that the tag is gone.
func TestTagThatAnEarlierReleaseConfirmedIsNotGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		opts := Options{Tags: freshness}
		opts.Tags.StaleIfGone = time.Second
		s := openStore(t, dir, opts)
		img := newImage("a")
		resolve(t, s, img.ask, Miss, img)
		pass(freshness.TTL)
		resolve(t, s, askGone, Stale, img)
		pass(freshness.TTL)
		rec, err := s.index.Tag(team, "v1")
		if err != nil {
			t.Fatal(err)
		}
		rec.Checked = time.Now()
		if err := s.index.PutTag(team, "v1", rec); err != nil {
			t.Fatal(err)
		}
		closeStore(t, s)
		s = openStore(t, dir, opts)
		wantGone(t, s, time.Time{})
		pass(freshness.TTL)
		resolve(t, s, dead, Stale, img)
		pass(freshness.TTL)
		resolve(t, s, img.ask, Hit, img)
		if pending := s.index.Pending(team, "v1"); !pending.IsZero() {
			t.Errorf("left behind: %+v", pending)
		}
	})
}

// The index is lost after the tag was found to be gone.
func TestSnapshotSaysWhichTagsAreGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		opts := Options{Tags: freshness}
		s := openStore(t, dir, opts)
		img := newImage("a")
		resolve(t, s, img.ask, Miss, img)
		loaded(t, s)
		if err := s.Pin(team, "v1"); err != nil {
			t.Fatal(err)
		}
		pass(freshness.TTL)
		since := time.Now()
		resolve(t, s, askGone, Stale, img)
		s.saveSnapshot(t.Context())
		closeStore(t, s)
		if err := os.RemoveAll(s.folder.Index()); err != nil {
			t.Fatal(err)
		}
		s = openStore(t, dir, opts)
		resolve(t, s, dead, Stale, img)
		wantGone(t, s, since)
	})
}

func TestRemovedTagIsNotGoneWhenItComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, t.TempDir(), Options{Tags: Freshness{TTL: time.Minute, StaleIfGone: time.Hour}})
		img := newImage("a")
		resolve(t, s, img.ask, Miss, img)
		pass(time.Minute)
		resolve(t, s, askGone, Stale, img)
		loaded(t, s)
		if _, err := s.Remove(team, "v1"); err != nil {
			t.Fatal(err)
		}
		resolve(t, s, img.ask, Miss, img)
		wantGone(t, s, time.Time{})
	})
}

func TestFixedTagIsNotAskedAboutAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		opts := Options{Tags: freshness}
		opts.Tags.Fixed = func(_ Repository, tag string) bool { return tag == "v1" }
		s := openStore(t, dir, opts)
		img := newImage("a")
		resolve(t, s, img.ask, Miss, img)
		pullTag(t, s, team, "latest", newImage("b"))
		pass(10 * freshness.StaleIfError)
		resolve(t, s, askGone, Hit, img)
		closeStore(t, s)
		s = openStore(t, dir, opts)
		resolve(t, s, askGone, Hit, img)
		if _, _, err := s.Tag(t.Context(), team, "latest", askGone); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("another tag: %v", err)
		}
	})
}
