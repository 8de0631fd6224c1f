package upkeep_test

import (
	"bytes"
	"net/http"
	"testing"
	"time"

	"github.com/larder-registry/larder/cache"
	"github.com/larder-registry/larder/cmd/internal/daemon/upkeep"
	"github.com/larder-registry/larder/upstream/ecrtest"
)

// heads pulls a tag n times, ten minutes apart, and returns how often the upstream was
// asked about it.
func (r *rig) heads(t *testing.T, clock *ecrtest.Clock, tag string, n int) int {
	t.Helper()
	r.ecr.ResetStats()
	for range n {
		clock.Advance(10 * time.Minute)
		r.get(t, "manifests/"+tag)
		r.tags.ReadQueued(t.Context())
	}
	return r.ecr.Stats().Requests[ecrtest.Manifest]
}

func (r *rig) setMutability(t *testing.T, m ecrtest.TagMutability) {
	t.Helper()
	if err := r.ecr.SetTagMutability("team/app", m); err != nil {
		t.Fatal(err)
	}
}

func TestImmutableTagsAreNotRevalidated(t *testing.T) {
	clock := ecrtest.NewClock()
	r := newRigAt(t, clock.Now, "", "")
	r.add(t, "1.0", time.Hour)
	r.add(t, "latest", 2*time.Hour)
	r.setMutability(t, ecrtest.TagMutability{Immutable: true, Except: []string{"lat*"}})
	for _, tag := range []string{"1.0", "latest"} {
		r.heads(t, clock, tag, 3) // reads the setting, and confirms the tag
	}
	if n := r.heads(t, clock, "1.0", 12); n != 2 {
		t.Errorf("an immutable tag was asked about %d times in two hours, want once each", n)
	}
	if n := r.heads(t, clock, "latest", 12); n != 12 {
		t.Errorf("a tag that is excluded was asked about %d of 12 times", n)
	}
	if n := r.ecr.AWS().Calls()[ecrtest.Call{Principal: "arn:aws:iam::123456789012:user/larder", Region: "us-east-1", Action: "ecr:DescribeRepositories"}]; n < 5 || n > 10 {
		t.Errorf("the setting was read %d times in five hours, want about once in 40 minutes", n)
	}
}

func TestTagsAreRevalidatedAfterTheirRepositoryBecomesMutable(t *testing.T) {
	clock := ecrtest.NewClock()
	r := newRigAt(t, clock.Now, "", "")
	r.add(t, "1.0", time.Hour)
	r.setMutability(t, ecrtest.TagMutability{Immutable: true})
	r.heads(t, clock, "1.0", 3)
	r.setMutability(t, ecrtest.TagMutability{})
	moved := r.add(t, "1.0", 2*time.Hour)
	r.heads(t, clock, "1.0", 6) // an hour
	r.pull(t, "1.0", moved)
	if !r.holds(moved) {
		t.Error("an hour later the tag is where it was")
	}
	if n := r.heads(t, clock, "1.0", 6); n != 6 {
		t.Errorf("a tag that can be moved again was asked about %d of 6 times", n)
	}
}

func TestDeniedTagMutabilityIsLoggedOnceAndNotReadForAnHour(t *testing.T) {
	clock := ecrtest.NewClock()
	r := newRigAt(t, clock.Now, "", "")
	r.add(t, "1.0", time.Hour)
	r.setMutability(t, ecrtest.TagMutability{Immutable: true})
	asked := make(map[time.Time]bool) // the SDK repeats requests that a server with another clock refuses
	r.ecr.Inject(ecrtest.Fault{
		On: ecrtest.API, Operation: "DescribeRepositories", Status: http.StatusBadRequest, Code: "AccessDeniedException",
		Notify: func() { asked[clock.Now()] = true },
	})
	for want := range 3 { // at first when the tag is no longer fresh, then an hour later
		if len(asked) != want {
			t.Errorf("the setting was asked for %d times, want %d", len(asked), want)
		}
		if n := r.heads(t, clock, "1.0", 6); n != 6 {
			t.Errorf("the tag was asked about %d of 6 times", n)
		}
	}
	if n := bytes.Count(r.log.Bytes(), []byte("ecr:DescribeRepositories, and to silence")); n != 1 {
		t.Errorf("it was logged %d times:\n%s", n, r.log.Bytes())
	}
}

func TestTagMutabilityIsNotReadWhenTurnedOff(t *testing.T) {
	clock := ecrtest.NewClock()
	r := newRigAt(t, clock.Now, ", immutable_tags: false", "")
	r.add(t, "1.0", time.Hour)
	r.setMutability(t, ecrtest.TagMutability{Immutable: true})
	r.ecr.Inject(ecrtest.Fault{On: ecrtest.API, Operation: "DescribeRepositories", Notify: func() { t.Error("the setting was read") }})
	if n := r.heads(t, clock, "1.0", 6); n != 6 {
		t.Errorf("the tag was asked about %d of 6 times", n)
	}
}

// Immutable tags must not become stale while the link is down.
func TestTagMutabilityHoldsWhileItCannotBeRead(t *testing.T) {
	clock := ecrtest.NewClock()
	r := newRigAt(t, clock.Now, "", "")
	r.add(t, "1.0", time.Hour)
	r.setMutability(t, ecrtest.TagMutability{Immutable: true})
	r.heads(t, clock, "1.0", 3)
	r.ecr.Inject(ecrtest.Fault{On: ecrtest.API, Operation: "DescribeRepositories", Status: http.StatusInternalServerError})
	repo := cache.Repository{Upstream: r.ecr.Host(), Name: "team/app"}
	clock.Advance(time.Minute)
	for range 2 {
		r.tags.ReadQueued(t.Context())
		if _, ok := r.tags.Since(repo, "1.0"); !ok {
			t.Error("the setting is forgotten")
		}
		clock.Advance(20 * time.Minute)
	}
	clock.Advance(upkeep.MutabilityTTL)
	if _, ok := r.tags.Since(repo, "1.0"); ok {
		t.Error("the setting still holds after its time")
	}
}
