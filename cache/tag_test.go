package cache

import (
	"context"
	"errors"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/larder-registry/larder/cache/fill/filltest"
	"github.com/larder-registry/larder/cache/manifest"
	"github.com/opencontainers/go-digest"
)

var freshness = Freshness{TTL: time.Minute, StaleIfError: time.Hour, Negative: 10 * time.Second}

// pass lets time pass in a bubble.
func pass(d time.Duration) {
	time.Sleep(d) //nolint:forbidigo // synctest's clock: no real time passes
}

// resolve requests the tag v1 of team, and checks the answer.
func resolve(t *testing.T, s *Store, ask Ask, want State, img *image) {
	t.Helper()
	m, state, err := s.Tag(t.Context(), team, "v1", ask)
	if err != nil || state != want || m.Digest != img.Digest || string(m.Raw) != string(img.Raw) {
		t.Errorf("got %s, %s, %v; want %s, %s", m.Digest, state, err, img.Digest, want)
	}
}

// wantAsked fails the test unless these requests reached the upstream since the last call.
func wantAsked(t *testing.T, img *image, want ...string) {
	t.Helper()
	if got := img.questions(); !slices.Equal(got, want) {
		t.Errorf("the upstream got %v, want %v", got, want)
	}
}

func TestTagIsConfirmedWhenItIsNoLongerFresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, t.TempDir(), Options{Tags: freshness})
		img := newImage("a")
		resolve(t, s, img.ask, Miss, img)
		wantAsked(t, img, "GET v1")
		pass(freshness.TTL - 1)
		resolve(t, s, img.ask, Hit, img)
		wantAsked(t, img)
		pass(1)
		resolve(t, s, img.ask, Hit, img)
		wantAsked(t, img, "HEAD v1")
	})
}

func TestMovedTagIsFollowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, t.TempDir(), Options{Tags: freshness})
		old, moved := newImage("old"), newImage("new")
		resolve(t, s, old.ask, Miss, old)
		pass(freshness.TTL)
		resolve(t, s, moved.ask, Miss, moved)
		wantAsked(t, moved, "HEAD v1", "GET "+moved.Digest.String())
		pass(freshness.TTL)
		resolve(t, s, old.ask, Hit, old) // and back: its manifest is still stored
		wantAsked(t, old, "GET v1", "HEAD v1")
	})
}

func TestTagIsServedStaleWhileTheUpstreamFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		s := openStore(t, dir, Options{Tags: freshness})
		img := newImage("a")
		resolve(t, s, img.ask, Miss, img)
		pass(freshness.TTL)
		img.fail(filltest.ErrBroken)
		img.questions()
		for range 3 {
			resolve(t, s, img.ask, Stale, img)
		}
		wantAsked(t, img, "HEAD v1") // the upstream is not asked again for a while
		pass(freshness.Negative)
		img.fail(nil)
		resolve(t, s, img.ask, Hit, img)

		closeStore(t, s)
		pass(freshness.StaleIfError - 1)
		s = openStore(t, dir, Options{Tags: freshness})
		resolve(t, s, dead, Stale, img) // also after a restart
		pass(1)
		if _, _, err := s.Tag(t.Context(), team, "v1", dead); !errors.Is(err, filltest.ErrBroken) {
			t.Errorf("a tag that is too old: %v", err)
		}
	})
}

func TestTagIsServedStaleIfTheUpstreamIsSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, t.TempDir(), Options{Tags: freshness})
		img := newImage("a")
		resolve(t, s, img.ask, Miss, img)
		pass(freshness.TTL)
		slow := func(ctx context.Context, reference string, head bool) (Manifest, error) {
			pass(5 * time.Second)
			return img.ask(ctx, reference, head)
		}
		begin := time.Now()
		resolve(t, s, slow, Stale, img)
		if took := time.Since(begin); took != staleWait {
			t.Errorf("it took %v", took)
		}
		pass(5 * time.Second)
		synctest.Wait()
		resolve(t, s, dead, Hit, img) // the request was completed
	})
}

func TestConcurrentRequestsResolveATagOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, t.TempDir(), Options{Tags: freshness})
		img := newImage("a")
		slow := func(ctx context.Context, reference string, head bool) (Manifest, error) {
			pass(time.Second)
			return img.ask(ctx, reference, head)
		}
		for _, want := range []string{"GET v1", "HEAD v1"} {
			var clients sync.WaitGroup
			for range 16 {
				clients.Go(func() {
					if _, _, err := s.Tag(t.Context(), team, "v1", slow); err != nil {
						t.Error(err)
					}
				})
			}
			clients.Wait()
			wantAsked(t, img, want)
			pass(freshness.TTL)
		}
	})
}

func TestTagThatWasDeletedUpstreamIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, t.TempDir(), Options{Tags: freshness})
		img := newImage("a")
		resolve(t, s, img.ask, Miss, img)
		pass(freshness.TTL)
		img.fail(fs.ErrNotExist)
		img.questions()
		for range 3 {
			if _, _, err := s.Tag(t.Context(), team, "v1", img.ask); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("got %v", err)
			}
		}
		wantAsked(t, img, "HEAD v1") // the missing tag is remembered
		if tags, err := s.Tags(team); err != nil || len(tags) > 0 {
			t.Errorf("tags %v, %v", tags, err)
		}
		pass(freshness.Negative)
		img.fail(nil)
		resolve(t, s, img.ask, Miss, img)
	})
}

func TestTagStaysIfOnlyItsManifestIsMissing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, t.TempDir(), Options{Tags: freshness})
		old, moved := newImage("old"), newImage("new")
		resolve(t, s, old.ask, Miss, old)
		pass(freshness.TTL)
		half := func(ctx context.Context, reference string, head bool) (Manifest, error) {
			if !head {
				return Manifest{}, fs.ErrNotExist
			}
			return moved.ask(ctx, reference, head)
		}
		resolve(t, s, half, Stale, old)
		resolve(t, s, half, Stale, old)
		wantAsked(t, moved, "HEAD v1") // the upstream is not asked again for a while
	})
}

func TestTagWhoseHEADNamesAWrongDigestIsFollowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, wrong := range []digest.Digest{digest.FromString("no manifest"), "sha256:short"} {
			s := openStore(t, t.TempDir(), Options{Tags: freshness})
			old, moved := newImage("old"), newImage("new")
			resolve(t, s, old.ask, Miss, old)
			pass(freshness.TTL)
			confused := func(ctx context.Context, reference string, head bool) (Manifest, error) {
				if reference != "v1" {
					return Manifest{}, fs.ErrNotExist
				}
				m, err := moved.ask(ctx, reference, head)
				if head {
					m.Digest = wrong
				}
				return m, err
			}
			resolve(t, s, confused, Miss, moved)
			wantAsked(t, moved, "HEAD v1", "GET v1")
			resolve(t, s, dead, Hit, moved)
		}
	})
}

// An old image is no substitute: the upstream is well, and has another one.
func TestTagThatMovedToSchema1IsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, t.TempDir(), Options{Tags: freshness})
		old, moved := newImage("old"), newImage("new")
		moved.Raw = []byte(`{"schemaVersion": 1, "name": "a", "fsLayers": [], "history": []}`)
		moved.Digest, moved.MediaType = digest.FromBytes(moved.Raw), "application/vnd.docker.distribution.manifest.v1+prettyjws"
		resolve(t, s, old.ask, Miss, old)
		pass(freshness.TTL)
		for range 3 {
			_, _, err := s.Tag(t.Context(), team, "v1", moved.ask)
			if !errors.Is(err, manifest.ErrSchema1) || !strings.Contains(err.Error(), "schema 1") {
				t.Errorf("got %v", err)
			}
		}
		wantAsked(t, moved, "HEAD v1", "GET "+moved.Digest.String()) // then it is left alone for a while
		pass(freshness.Negative)
		resolve(t, s, dead, Stale, old) // the upstream does not say any more that it moved
		pass(freshness.Negative)
		resolve(t, s, old.ask, Hit, old)
	})
}

func TestStaleTagLogsWhyOncePerReason(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := new(logBuffer)
		s := openStore(t, t.TempDir(), Options{Tags: freshness, Log: log.log()})
		img := newImage("a")
		resolve(t, s, img.ask, Miss, img)
		pass(freshness.TTL)
		want := 0
		stale := func(err error, logged int) {
			t.Helper()
			img.fail(err)
			resolve(t, s, img.ask, Stale, img)
			resolve(t, s, img.ask, Stale, img)
			pass(freshness.Negative)
			want += logged
			if got := log.lines("served stale"); got != want {
				t.Errorf("%v: %d lines, want %d", err, got, want)
			}
		}
		stale(errors.New("read from port 1000: reset"), 1)
		stale(errors.New("read from port 2000: reset"), 0)
		stale(fs.ErrPermission, 1)
		stale(fs.ErrPermission, 0)
		img.fail(nil)
		resolve(t, s, img.ask, Hit, img)
		pass(freshness.TTL)
		stale(fs.ErrPermission, 1)
	})
}

func TestTagFromTheFutureIsNotFresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		ahead := openStore(t, dir, Options{Tags: freshness, Now: func() time.Time { return time.Now().AddDate(1, 0, 0) }})
		img := newImage("a")
		resolve(t, ahead, img.ask, Miss, img)
		closeStore(t, ahead)
		img.questions()
		s := openStore(t, dir, Options{Tags: freshness})
		resolve(t, s, img.ask, Hit, img)
		wantAsked(t, img, "HEAD v1")
	})
}

func TestTagsListsOneRepository(t *testing.T) {
	s := openStore(t, t.TempDir(), Options{Tags: freshness})
	img := newImage("a")
	for _, repo := range []Repository{team, other, {Upstream: team.Upstream, Name: team.Name + "2"}, {Upstream: team.Upstream, Name: "team"}} {
		for _, tag := range []string{"v2", "v1"} {
			if _, _, err := s.Tag(t.Context(), repo, tag, img.ask); err != nil {
				t.Fatal(err)
			}
		}
	}
	if tags, err := s.Tags(team); err != nil || !slices.Equal(tags, []string{"v1", "v2"}) {
		t.Errorf("got %v, %v", tags, err)
	}
}

func TestImmutableTagIsNotConfirmedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var since time.Time // zero while nothing is known
		rules := freshness
		rules.ImmutableTTL = time.Hour
		rules.Immutable = func(repo Repository, tag string) (time.Time, bool) {
			if repo != team || tag != "v1" {
				t.Errorf("asked about %s:%s", repo, tag)
			}
			return since, !since.IsZero()
		}
		s := openStore(t, t.TempDir(), Options{Tags: rules})
		img := newImage("a")
		resolve(t, s, img.ask, Miss, img)
		wantAsked(t, img, "GET v1")
		pass(rules.TTL)
		since = time.Now()
		pass(1)
		resolve(t, s, img.ask, Hit, img) // the tag may have moved before it was immutable
		wantAsked(t, img, "HEAD v1")
		pass(rules.ImmutableTTL - 1)
		resolve(t, s, img.ask, Hit, img)
		wantAsked(t, img)
		pass(1)
		resolve(t, s, img.ask, Hit, img) // the tag may have been deleted and pushed again
		wantAsked(t, img, "HEAD v1")

		pass(rules.TTL)
		since = time.Time{}
		resolve(t, s, img.ask, Hit, img)
		wantAsked(t, img, "HEAD v1")
	})
}

func TestAskTagLeavesTheRecordOfTheTag(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, t.TempDir(), Options{Tags: freshness})
		before, after := newImage("a"), newImage("b")
		resolve(t, s, before.ask, Miss, before)
		before.questions()

		m, err := s.AskTag(t.Context(), team, "v1", after.ask) // though the record is fresh
		if err != nil || m.Digest != after.Digest || string(m.Raw) != string(after.Raw) {
			t.Errorf("asked: %s, %v", m.Digest, err)
		}
		wantAsked(t, after, "HEAD v1", "GET "+after.Digest.String())
		resolve(t, s, before.ask, Hit, before)
		if _, ok := s.ManifestHere(team, after.Digest); !ok {
			t.Error("the manifest is not in the cache")
		}

		confirmed := time.Now()
		pass(freshness.TTL / 2)
		if err := s.SetTag(team, "v1", after.Digest, confirmed); err != nil {
			t.Fatal(err)
		}
		resolve(t, s, before.ask, Hit, after)
		pass(freshness.TTL / 2)
		resolve(t, s, after.ask, Hit, after)
		wantAsked(t, after, "HEAD v1") // it aged from the confirmation on
	})
}

func TestAskTagOfATagThatIsGoneLeavesItsRecord(t *testing.T) {
	s := openStore(t, t.TempDir(), Options{Tags: freshness})
	img := newImage("a")
	resolve(t, s, img.ask, Miss, img)
	gone := func(context.Context, string, bool) (Manifest, error) { return Manifest{}, fs.ErrNotExist }
	if _, err := s.AskTag(t.Context(), team, "v1", gone); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("asked: %v", err)
	}
	resolve(t, s, gone, Hit, img)
}

func TestTagCannotBeSetToAManifestThatTheRepositoryDoesNotHave(t *testing.T) {
	s := openStore(t, t.TempDir(), Options{Tags: freshness})
	img := newImage("a")
	if err := s.SetTag(team, "v1", img.Digest, time.Now()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("set to a manifest that is not here: %v", err)
	}
	resolve(t, s, img.ask, Miss, img)
	other := Repository{Upstream: team.Upstream, Name: "other"}
	if err := s.SetTag(other, "v1", img.Digest, time.Now()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("set to a manifest of another repository: %v", err)
	}
	if _, ok := s.TagHere(other, "v1"); ok {
		t.Error("the other repository has the tag")
	}
}
