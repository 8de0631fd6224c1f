package policy

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"
)

func TestAgeCountsFromThePushAndElseFromFirstSight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pushed := map[digest.Digest]time.Time{
			image("old", oci).Digest:    time.Now().Add(-100 * time.Hour),
			image("recent", oci).Digest: time.Now().Add(-time.Hour),
			image("future", oci).Digest: time.Now().Add(100 * time.Hour),
		}
		r := rule(host + "/prod/*")
		r.Age = 72 * time.Hour
		p := newPolicy(t, Options{Pushed: func(_ context.Context, im Image) (time.Time, bool, error) {
			at, ok := pushed[im.Digest]
			return at, ok, nil
		}}, r)
		check := func(want map[string]Result) {
			t.Helper()
			for content, result := range want {
				if d := decide(t, p, image(content, oci), shelf{}); d.Result != result {
					t.Errorf("%s is %s, want %s: %s", content, d.Result, result, d.Why())
				}
			}
		}
		check(map[string]Result{"old": Allowed, "recent": Refused, "future": Refused, "not told": Refused})
		pass(71 * time.Hour)
		check(map[string]Result{"old": Allowed, "recent": Allowed, "future": Refused, "not told": Refused})
		pass(time.Hour)
		check(map[string]Result{"future": Allowed, "not told": Allowed})
	})
}

func TestAgeOfWhatIsHereLongEnoughAsksNobody(t *testing.T) {
	r := rule(host + "/prod/*")
	r.Age = time.Hour
	p := newPolicy(t, Options{
		Pushed: func(context.Context, Image) (time.Time, bool, error) {
			t.Error("the registry was asked")
			return time.Time{}, false, nil
		},
		Seen: func(Image) (time.Time, bool) { return time.Now().Add(-2 * time.Hour), true },
	}, r)
	if d := decide(t, p, image("a", oci), shelf{}); d.Result != Allowed {
		t.Errorf("got %s: %s", d.Result, d.Why())
	}
}
