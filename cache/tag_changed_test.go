package cache

import (
	"context"
	"errors"
	"io/fs"
	"testing"
	"testing/synctest"
	"time"
)

// tagAnswer is what a client gets for a tag.
type tagAnswer struct {
	Manifest
	State
	err error
}

// askDuring asks for team:v1, and calls change after the upstream got the question and before it
// answers.
func askDuring(t *testing.T, s *Store, upstream Ask, change func()) tagAnswer {
	t.Helper()
	asked, changed, answer := make(chan struct{}), make(chan struct{}), make(chan tagAnswer, 1)
	go func() {
		m, state, err := s.Tag(t.Context(), team, "v1", func(ctx context.Context, reference string, head bool) (Manifest, error) {
			if reference == "v1" {
				close(asked)
				<-changed
			}
			return upstream(ctx, reference, head)
		})
		answer <- tagAnswer{m, state, err}
	}()
	<-asked
	change()
	close(changed)
	return <-answer
}

func TestImportOutlivesAQuestionThatBeganBeforeIt(t *testing.T) {
	for _, known := range []bool{false, true} {
		for name, upstream := range map[string]Ask{"another image": newImage("upstream's").ask, "no such tag": askGone} {
			t.Run(name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					s := openStore(t, t.TempDir(), Options{Tags: freshness})
					loaded(t, s)
					img, before := newImage("imported"), newImage("before")
					if known {
						resolve(t, s, before.ask, Miss, before)
						wantAsked(t, before, "GET v1")
						pass(freshness.TTL)
					}
					got := askDuring(t, s, upstream, func() { importOld(t, s, img, true) })
					if name == "no such tag" && (got.err != nil || got.Digest != img.Digest) {
						t.Errorf("the client got %s, %v", got.Digest, got.err)
					}
					wantLocal(t, s, img, before)
				})
			})
		}
	}
}

func TestTagThatIsRemovedWhileItIsFoundToBeGoneStaysRemoved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, t.TempDir(), Options{Tags: Freshness{TTL: time.Minute, StaleIfGone: time.Hour}})
		loaded(t, s)
		img := newImage("a")
		resolve(t, s, img.ask, Miss, img)
		pass(time.Minute)
		got := askDuring(t, s, askGone, func() {
			if _, err := s.Remove(team, "v1"); err != nil {
				t.Error(err)
			}
		})
		if !errors.Is(got.err, fs.ErrNotExist) {
			t.Errorf("the client got %s, %v", got.Digest, got.err)
		}
		if _, known := s.tag(tagID{team, "v1"}); known {
			t.Error("the tag has a record again")
		}
		if pending := s.index.Pending(team, "v1"); !pending.IsZero() {
			t.Errorf("left behind: %+v", pending)
		}
	})
}

func TestLaterAnswerOutlivesAnEarlierOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, t.TempDir(), Options{Tags: freshness})
		before, after := newImage("a"), newImage("b")
		resolve(t, s, before.ask, Miss, before)
		asked := time.Now()
		pass(freshness.TTL)
		resolve(t, s, after.ask, Miss, after)
		if err := s.SetTag(team, "v1", before.Digest, asked); err != nil { // its image took long
			t.Fatal(err)
		}
		resolve(t, s, dead, Hit, after)
		pass(freshness.TTL)
		got := askDuring(t, s, before.ask, func() {
			pass(time.Second)
			if err := s.SetTag(team, "v1", after.Digest, time.Now()); err != nil {
				t.Error(err)
			}
		})
		if got.err != nil {
			t.Error(got.err)
		}
		resolve(t, s, dead, Hit, after)
	})
}

func TestLocalTagIsNotSetToAnImageOfItsUpstream(t *testing.T) {
	s := openStore(t, t.TempDir(), atSite)
	img, upstreams := newImage("a"), newImage("b")
	m, err := s.AskTag(t.Context(), team, "v1", upstreams.ask)
	if err != nil {
		t.Fatal(err)
	}
	confirmed := time.Now()
	upstreams.questions()
	importOld(t, s, img, true) // while the upstream's image is fetched
	if err := s.SetTag(team, "v1", m.Digest, confirmed); err != nil {
		t.Fatal(err)
	}
	wantLocal(t, s, img, upstreams)
}
