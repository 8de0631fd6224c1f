package cache

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/larder-registry/larder/cache/fill/filltest"
)

// What another cache has confirmed some time ago is no longer fresh when it is not there any more.
func TestAnswerOfAnotherCacheIsAsOldAsItSays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, t.TempDir(), Options{Tags: freshness})
		img := newImage("a")
		aged := func(ctx context.Context, reference string, head bool) (Manifest, error) {
			Aged(ctx, 40*time.Second)
			Aged(ctx, 20*time.Second) // of two answers, the older one counts
			return img.ask(ctx, reference, head)
		}
		resolve(t, s, aged, Miss, img)
		if age := time.Since(s.TagChecked(team, "v1")); age != 40*time.Second {
			t.Errorf("the tag was confirmed %v ago", age)
		}
		wantAsked(t, img, "GET v1")
		pass(freshness.TTL - 40*time.Second - 1)
		resolve(t, s, img.ask, Hit, img)
		wantAsked(t, img)
		pass(1)
		resolve(t, s, img.ask, Hit, img)
		wantAsked(t, img, "HEAD v1")

		list := func(ctx context.Context) ([]ocispec.Descriptor, error) {
			Aged(ctx, 40*time.Second)
			return nil, nil
		}
		if _, _, err := s.Referrers(t.Context(), team, img.Digest, list); err != nil {
			t.Fatal(err)
		}
		if age := time.Since(s.ReferrersChecked(team, img.Digest)); age != 40*time.Second {
			t.Errorf("the list of referrers was given %v ago", age)
		}
		Aged(t.Context(), time.Hour) // of no question: nothing happens
	})
}

func TestHasKnowsWhatIsHereAndOnItsWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, t.TempDir(), small)
		o := filltest.New(1000, 1)
		if s.Has(o.Digest) || s.Has("no digest") {
			t.Error("it has what nobody has asked for")
		}
		pull(t, s, o)
		settle(t, s)
		if !s.Has(o.Digest) {
			t.Error("it does not have what was pulled")
		}
	})
}
