package cache

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/larder-registry/larder/cache/blobs"
)

func TestEvictionsListDigestReasonAndRepositories(t *testing.T) {
	s := openStore(t, t.TempDir(), Options{Tags: freshness})
	old, expired, removed := newImage("old"), newImage("expired"), newImage("removed")
	pullTag(t, s, team, "old", old)
	pullTag(t, s, other, "old", old)
	pullTag(t, s, team, "expired", expired)
	pullTag(t, s, team, "removed", removed)
	if err := s.Expire([]Verdict{{Repository: team, Digest: expired.Digest, Expiry: Expiry{Since: time.Now()}}}); err != nil {
		t.Fatal(err)
	}
	evictN(t, s, 2)
	if _, err := s.Remove(team, "removed"); err != nil {
		t.Fatal(err)
	}
	got := s.Evictions()
	want := []Eviction{
		{Digest: removed.Digest, Reason: blobs.ReasonRemoved},
		{Digest: old.Digest, Reason: blobs.ReasonUnused, Repositories: []string{other.String(), team.String()}},
		{Digest: expired.Digest, Reason: blobs.ReasonExpired, Repositories: []string{team.String()}},
	}
	byName := cmpopts.SortSlices(func(a, b string) bool { return a < b })
	if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(Eviction{}, "At", "Bytes"), byName); diff != "" {
		t.Errorf("evictions (-want +got):\n%s", diff)
	}
	for _, e := range got {
		if e.Bytes <= 0 || time.Since(e.At) > time.Minute {
			t.Errorf("%+v", e)
		}
	}
}

func TestEvictionListsAtMostFourRepositories(t *testing.T) {
	s := openStore(t, t.TempDir(), Options{Tags: freshness})
	img := newImage("shared")
	for i := range 10 {
		pullTag(t, s, Repository{Upstream: team.Upstream, Name: fmt.Sprint("app", i)}, "v1", img)
	}
	evictN(t, s, 1)
	if got := s.Evictions(); len(got) != 1 || len(got[0].Repositories) != 4 {
		t.Errorf("%+v", got)
	}
}
